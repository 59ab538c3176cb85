"""A finished run predicts what its best network says; anything else at its place is refused."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from nucseg.errors import ConfigError
from nucseg.models import ModelConfig, build_model
from nucseg_cache import EmbeddingNotFound, Store, StoreNotFound
from nucseg_pipeline.config import TrainConfig
from nucseg_pipeline.evaluation import test_sets
from nucseg_pipeline.evaluation.experiments import group_runs
from nucseg_pipeline.report.warnings import report_warnings
from nucseg_pipeline.runs.folder import RunFolder
from nucseg_pipeline.runs.provenance import native_mpp, native_px
from nucseg_pipeline.runs.run import Run, TrainedRun
from nucseg_pipeline.train.stage import train

NAME = "a [run] of ours"


@pytest.fixture(scope="module")
def trained(pristine_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run and a cache of its own beside it; not to be changed."""
    place = tmp_path_factory.mktemp("trained")
    shutil.copytree(pristine_cache, place / "cache")
    config = TrainConfig(
        dataset="synthetic", cache=str(place / "cache"), encoder="random", width=2, epochs=2, batch_size=4,
        learning_rate=3e-3, device="cpu", threads=1, run=place / NAME,
    )  # fmt: skip
    train(config)
    return place


@pytest.fixture
def place(trained: Path, tmp_path: Path) -> Path:
    """The same, to be changed; the run knows its cache at the new place."""
    shutil.copytree(trained, tmp_path / "place")
    inputs = tmp_path / "place" / NAME / "inputs.json"
    inputs.write_text(inputs.read_text().replace(str(trained), str(tmp_path / "place")))
    return tmp_path / "place"


@pytest.fixture
def change(place: Path) -> Callable[..., None]:
    def change(sample_id: str, **changed: object) -> None:
        store = Store.open(place / "cache" / "synthetic.zarr", mode="r+")
        row = store.row_of(sample_id)
        store.replace(row, replace(store.read_samples([row])[0], **changed))

    return change


def test_a_run_says_what_it_is(trained: Path) -> None:
    run = Run.open(trained / NAME)
    assert run.name == NAME
    assert (run.config.dataset, run.config.width) == ("synthetic", 2)
    assert [row["epoch"] for row in run.history] == [1, 2]
    assert {*run.history[0]} >= {"train_loss", "validation_loss", "validation_dice", "learning_rate", "seconds"}
    assert len({*run.split.train, *run.split.validation, *run.split.test}) == 12
    assert 0 < run.rule.threshold < 1
    provenance = run.provenance
    assert provenance["embedding"]["architecture"] == "random"
    assert (provenance["encoder_note"], provenance["dataset"]) == ("drawn for a test", "synthetic")
    assert provenance["best_epoch"] == 1 + int(np.argmax([row["validation_dice"] for row in run.history]))
    json.dumps(dict(provenance))


def test_a_prediction_is_what_the_best_network_says_of_image_and_embedding(trained: Path) -> None:
    run = Run.open(trained / NAME)
    ids = run.split.test[::-1]
    predictions = list(run.predict(ids))

    model = build_model("eunet3plus", ModelConfig(width=2))
    model.load_state_dict(torch.load(trained / NAME / "best.pt", weights_only=True)["model"])
    model.eval()
    store = Store.open(trained / "cache" / "synthetic.zarr")
    assert [prediction.sample.id for prediction in predictions] == list(ids)
    for prediction in predictions:
        row = store.row_of(prediction.sample.id)
        image = torch.from_numpy(store.read_samples([row])[0].image).permute(2, 0, 1)[None] / 255
        embedding = torch.from_numpy(store.embeddings(store.keys()[0]).read([row])).float()
        with torch.no_grad():
            expected = model(image, embedding).softmax(1)[0, 1].numpy()
        np.testing.assert_allclose(prediction.probability, expected, atol=1e-5)


def test_a_run_whose_cache_was_moved_opens_when_told_where(place: Path) -> None:
    (place / "cache").rename(place / "moved")
    with pytest.raises(StoreNotFound):
        Run.open(place / NAME)
    run = Run.open(place / NAME, cache=str(place / "moved"))
    assert len(list(run.predict(run.split.test))) == len(run.split.test)


def test_a_test_image_that_has_changed_since_is_named(place: Path, change: Callable[..., None]) -> None:
    sample_id = Run.open(place / NAME).split.test[0]
    change(sample_id, mask_digest=bytes(32))
    with pytest.raises(ConfigError) as refused:
        Run.open(place / NAME)
    assert sample_id in str(refused.value)
    assert "1 test images" in str(refused.value)


def test_a_test_image_that_has_vanished_since_is_named(place: Path) -> None:
    sample_id = Run.open(place / NAME).split.test[0]
    store = Store.open(place / "cache" / "synthetic.zarr", mode="r+")
    store.set_present(store.row_of(sample_id), present=False)
    with pytest.raises(ConfigError, match="vanished") as refused:
        Run.open(place / NAME)
    assert sample_id in str(refused.value)


def test_a_training_image_that_has_changed_since_does_not_stop_a_report(
    place: Path, change: Callable[..., None]
) -> None:
    change(Run.open(place / NAME).split.train[0], mask_digest=bytes(32))
    assert Run.open(place / NAME).name == NAME


def test_a_missing_embedding_is_told_before_the_first_prediction(place: Path) -> None:
    run = Run.open(place / NAME)
    store = Store.open(place / "cache" / "synthetic.zarr", mode="r+")
    store.embeddings(store.keys()[0]).clear([store.row_of(run.split.test[0])])
    with pytest.raises(ConfigError, match="have no embedding yet"):
        run.predict(run.split.test)


def test_deleted_embeddings_are_told_with_what_was_asked_for(place: Path) -> None:
    store = Store.open(place / "cache" / "synthetic.zarr", mode="r+")
    store.delete_group(store.keys()[0].hash)
    run = Run.open(place / NAME)
    with pytest.raises(EmbeddingNotFound):
        run.predict(run.split.test)


def test_the_network_of_another_run_is_refused(place: Path) -> None:
    inputs = place / NAME / "inputs.json"
    content = json.loads(inputs.read_text())
    content["samples"][Run.open(place / NAME).split.train[0]] = ["00", "00"]
    inputs.write_text(json.dumps(content))
    run = Run.open(place / NAME)
    with pytest.raises(ConfigError, match="of another run"):
        run.predict(run.split.test)


@pytest.mark.parametrize("name", ["rule.json", "best.pt", "position.npy", "split.json", "config.toml", "run.json"])
def test_a_file_of_a_run_that_was_edited_is_named(place: Path, name: str) -> None:
    file = place / NAME / name
    if name == "rule.json":
        file.write_text(json.dumps({**json.loads(file.read_text()), "threshold": 0.123}))
    elif name == "split.json":
        parts = json.loads(file.read_text())
        file.write_text(json.dumps({**parts, "test": parts["test"] + parts["train"][:1], "train": parts["train"][1:]}))
    elif name == "config.toml":
        file.write_text(file.read_text().replace("seed = 0", "seed = 1"))
    elif name == "run.json":
        file.write_text(file.read_text().replace('"validation_dice": 0.', '"validation_dice": 0.9'))
    else:
        content = file.read_bytes()
        file.write_bytes(content[:2000] + bytes([content[2000] ^ 1]) + content[2001:])

    with pytest.raises(ConfigError, match=rf"{name} cannot be read: (it was edited|it was changed|its digest differs)"):
        Run.open(place / NAME)


def test_where_a_run_was_may_be_edited(place: Path) -> None:
    file = place / NAME / "config.toml"
    file.write_text(file.read_text().replace(str(place.parent), "/elsewhere").replace("threads = 1", "threads = 2"))
    assert Run.open(place / NAME).config.threads == 2


def test_images_that_were_learned_from_and_have_changed_since_are_told_in_the_report(
    place: Path, change: Callable[..., None]
) -> None:
    learned = Run.open(place / NAME).split.train[0]
    change(learned, image_digest=b"\xff" * 32)

    run = Run.open(place / NAME)

    assert run.changed_since == (learned,)
    own = test_sets.TestSet(run.store, {NAME: run.split.test}, "", ())
    notes = report_warnings(own, group_runs({NAME: run}))
    assert any("1 training or validation images have changed" in note and learned in note for note in notes)


def test_where_no_folder_is_there_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such folder"):
        Run.open(tmp_path / "nowhere")


def test_a_folder_of_something_else_is_not_a_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not a run"):
        Run.open(tmp_path)


def test_an_unfinished_run_is_refused_with_the_command_that_finishes_it(place: Path) -> None:
    RunFolder(place / NAME).write_status("training", changed=[])
    with pytest.raises(ConfigError, match=r"not finished.*--resume"):
        Run.open(place / NAME)


def test_a_run_that_was_killed_while_it_was_set_up_is_told_as_unfinished(place: Path) -> None:
    for name in ("run.json", "last.pt"):
        (place / NAME / name).unlink()
    with pytest.raises(ConfigError, match=r"not finished.*--resume"):
        Run.open(place / NAME)


def test_a_run_of_another_format_is_refused_with_both_numbers(place: Path) -> None:
    (place / NAME / "run.json").write_text(json.dumps({"format": 2, "status": "finished"}))
    with pytest.raises(ConfigError, match="format 2, this version reads 1"):
        Run.open(place / NAME)


@pytest.mark.parametrize("name", ["config.toml", "split.json", "inputs.json", "rule.json", "run.json"])
@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"\xff", b'{"a": 1}'])
def test_a_damaged_file_is_one_clear_error(place: Path, name: str, content: bytes) -> None:
    (place / NAME / name).write_bytes(content)
    with pytest.raises(ConfigError) as refused:
        Run.open(place / NAME)
    assert len(str(refused.value)) > 20


@pytest.mark.parametrize("content", [b"", b"epoch,x\n1,one\n", b"\xff"])
def test_a_damaged_history_is_named(place: Path, content: bytes) -> None:
    (place / NAME / "epochs.csv").write_bytes(content)
    run = Run.open(place / NAME)
    with pytest.raises(ConfigError, match=r"epochs\.csv"):
        _ = run.history


def test_a_store_that_was_prepared_in_another_way_is_refused(place: Path) -> None:
    """Same images, same masks, other pixels: the report would say nothing."""
    root = place / "cache" / "synthetic.zarr"
    rows = Store.open(root).read_samples(range(12))
    shutil.rmtree(root)
    Store.create(root, dataset="synthetic", source="", preparation={"side_px": "32", "stain": "macenko"}, rows=rows)

    with pytest.raises(ConfigError, match=r"is prepared as .*macenko.*was trained on images prepared as .*side_px"):
        Run.open(place / NAME)


def test_a_cache_without_the_runs_own_store_leaves_it_where_it_was(place: Path, tmp_path: Path) -> None:
    """--cache may name the cache of another data set that the run is to be scored on."""
    assert Run.open(place / NAME, cache=str(tmp_path / "another")).store.location == str(
        place / "cache" / "synthetic.zarr"
    )
    shutil.rmtree(place / "cache")
    with pytest.raises(ConfigError, match=r"neither at .*another/synthetic\.zarr nor, .*cache/synthetic\.zarr"):
        Run.open(place / NAME, cache=str(tmp_path / "another"))


# ---- files of a run that do not belong together, or hold what no network can be


def rewritten(run: Path, name: str, content: dict[str, Any]) -> None:
    """Replace a checkpoint or JSON file and its digest in run.json, as another program might."""
    if name.endswith(".pt"):
        torch.save(content, run / name)
    else:
        (run / name).write_text(json.dumps(content))
    status = RunFolder(run).status()
    RunFolder(run).finish(**{key: value for key, value in status.items() if key not in ("format", "status", "files")})


def test_a_run_whose_inputs_are_of_other_images_than_its_split_is_refused(place: Path) -> None:
    inputs = json.loads((place / NAME / "inputs.json").read_text())
    del inputs["samples"]["image [3]"]
    rewritten(place / NAME, "inputs.json", inputs)

    with pytest.raises(ConfigError, match=r"do not belong together: inputs.json records no digests of image \[3\]"):
        Run.open(place / NAME)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda weights: weights.popitem(), "is of another network than config.toml next to it says"),
        (lambda weights: next(iter(weights.values())).fill_(float("nan")), "has weights that are not finite"),
    ],
)
def test_a_network_that_is_not_that_of_the_run_is_refused(
    place: Path, spoil: Callable[[dict[str, torch.Tensor]], object], message: str
) -> None:
    best = torch.load(place / NAME / "best.pt", weights_only=True)
    spoil(best["model"])
    rewritten(place / NAME, "best.pt", best)

    with pytest.raises(ConfigError, match=message):
        Run.open(place / NAME).network()


def test_a_configuration_that_no_network_can_be_built_of_is_refused(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(config: TrainConfig) -> None:
        raise ConfigError("width is 9 PiB.")

    run = Run.open(trained / NAME)
    monkeypatch.setattr("nucseg_pipeline.runs.run.build_network", refuse)
    with pytest.raises(ConfigError, match=r"config\.toml describes no valid network: width is 9 PiB"):
        run.network()


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(ConfigError, match=r"folder .* cannot be made: Not a directory"),
        RunFolder(tmp_path / "file" / "run").lock(),
    ):
        pass


# ---- a run by itself


def test_a_run_opens_and_loads_its_network_without_its_store(place: Path) -> None:
    shutil.rmtree(place / "cache")
    run = TrainedRun.opened(place / NAME)
    assert (run.name, run.inputs.dataset) == (NAME, "synthetic")
    assert run.network().training is False


def test_a_run_records_how_large_and_how_magnified_its_training_images_were(trained: Path) -> None:
    inputs = TrainedRun.opened(trained / NAME).inputs
    assert (inputs.native_px, inputs.mpp) == (32, 0.5)


@pytest.mark.parametrize(
    ("name", "field"),
    [
        *(("inputs.json", field) for field in ("native_px", "mpp", "views", "learned_from", "split", "configuration")),
        *(("run.json", field) for field in ("digest", "files", "best_epoch", "changed")),
    ],
)
def test_every_field_of_a_run_is_required(place: Path, name: str, field: str) -> None:
    """Without a digest, anybody could have edited the file that it is of."""
    file = place / NAME / name
    content = json.loads(file.read_text())
    del content[field]
    if name == "run.json" and field != "digest":
        RunFolder(place / NAME).write_status(
            **{key: value for key, value in content.items() if key not in ("format", "digest")}
        )
    else:
        file.write_text(json.dumps(content))

    with pytest.raises(ConfigError, match=rf"{name} cannot be read"):
        TrainedRun.opened(place / NAME)


@pytest.mark.parametrize("files", [{}, {"rule.json": "0"}])
def test_a_file_whose_digest_is_not_recorded_is_refused(place: Path, files: dict[str, str]) -> None:
    folder = RunFolder(place / NAME)
    status = {key: value for key, value in folder.status().items() if key != "format"}
    folder.write_status(**{**status, "files": files})
    with pytest.raises(ConfigError, match=r"best\.pt cannot be read: its digest differs from the one in run"):
        TrainedRun.opened(place / NAME)


@pytest.mark.parametrize(
    ("said", "mpp"), [((0.25, 0.25, 0.26), 0.25), ((0.25, 0.5, 0.5), 0.0), ((None, 0.5, 0.5), 0.0)]
)
def test_the_resolution_of_images_is_known_where_it_is_one(said: tuple[float | None, ...], mpp: float) -> None:
    table = [SimpleNamespace(id=str(i), mpp=value, size=(10, 20 + i)) for i, value in enumerate(said)]
    assert native_mpp(SimpleNamespace(table=table), ["0", "1", "2"]) == mpp
    assert native_px(SimpleNamespace(table=table), ["0", "1", "2"]) == 21
    assert native_px(SimpleNamespace(table=table), []) == 0
