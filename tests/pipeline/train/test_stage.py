"""Training leaves a run behind, and a run that was stopped anywhere ends as if it had not been."""

import csv
import json
import math
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score

from nucseg.data import open_dataset
from nucseg.errors import ConfigError, DataError, TrainingError
from nucseg.nuclei.instances import InstanceRule
from nucseg_cache import EmbeddingNotFound, Key, RowDamaged, Store, StoreNotFound
from nucseg_pipeline.config import TrainConfig, store_location
from nucseg_pipeline.config.recipe import load_recipe, resolve
from nucseg_pipeline.evaluation import test_sets
from nucseg_pipeline.evaluation.experiments import group_runs
from nucseg_pipeline.modelling.inference import Scores
from nucseg_pipeline.modelling.model import build_network
from nucseg_pipeline.report.warnings import report_warnings
from nucseg_pipeline.runs.folder import RunFolder
from nucseg_pipeline.runs.run import Run
from nucseg_pipeline.runs.selection import make_split
from nucseg_pipeline.train import segmentation, stage
from nucseg_pipeline.train.events import EpochDone, Event, Started, StepDone
from nucseg_pipeline.train.objective import Objective
from nucseg_pipeline.train.segmentation import learning_rate
from nucseg_pipeline.train.stage import TrainResult, train
from tests.pipeline.conftest import ignore_everything

Configure = Callable[..., TrainConfig]
FILES = {
    "config.toml", "split.json", "inputs.json", "run.json", "position.npy", "epochs.csv", "last.pt", "best.pt",
    "rule.json",
}  # fmt: skip


class Stopped(Exception):
    """What a test raises where a user would press Ctrl-C."""


def stop_at(epoch: int, step: int | None) -> Callable[[Event], None]:
    """A callback that stops at a step, or with step None once the epoch is finished."""

    def on_event(event: Event) -> None:
        at_step = isinstance(event, StepDone) and (event.epoch, event.step) == (epoch, step)
        if at_step or (step is None and isinstance(event, EpochDone) and event.row.epoch == epoch):
            raise Stopped

    return on_event


def last(folder: Path) -> dict[str, Any]:
    return RunFolder(folder).load_checkpoint("last.pt")


def epochs(folder: Path) -> list[dict[str, float]]:
    """The rows of epochs.csv, by the csv module."""
    with (folder / "epochs.csv").open() as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def assert_same_run(folder: Path, other: Path) -> None:
    """Weights, optimiser, choices and history are the same to the last bit; wall times may differ."""
    first, second = last(folder), last(other)
    for name, tensor in first["model"].items():
        assert torch.equal(tensor, second["model"][name]), name
    for number, state in first["optimizer"]["state"].items():
        for name, tensor in state.items():
            assert torch.equal(tensor, second["optimizer"]["state"][number][name]), (number, name)
    assert timeless(first["history"]) == timeless(second["history"])
    for name in ("best.pt", "position.npy", "rule.json", "split.json", "run.json"):
        assert (folder / name).read_bytes() == (other / name).read_bytes(), name


def timeless(history: list[dict[str, float]]) -> list[dict[str, float]]:
    return [{name: value for name, value in row.items() if name != "seconds"} for row in history]


@pytest.fixture(scope="module", autouse=True)
def quick_rule() -> Iterator[None]:
    """Choosing a rule takes as long as training here; this rule is as sensitive to the probabilities."""

    def choose(probabilities: list[np.ndarray], *others: object) -> InstanceRule:
        return InstanceRule(threshold=float(np.mean(probabilities)))

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(stage, "choose_rule", choose)
        yield


@pytest.fixture(scope="module")
def trained(
    pristine_cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[TrainConfig, TrainResult, list[Event]]:
    """A run of two epochs that nothing disturbed, and what it reported; not to be changed."""
    config = TrainConfig(
        dataset="synthetic", cache=str(pristine_cache), encoder="random", width=2, epochs=2, batch_size=4,
        learning_rate=3e-3, device="cpu", threads=1, run=tmp_path_factory.mktemp("runs") / "run",
    )  # fmt: skip
    events: list[Event] = []
    return config, train(config, events.append), events


@pytest.fixture(scope="module")
def finished(trained: tuple[TrainConfig, TrainResult, list[Event]]) -> TrainConfig:
    """The configuration of that run."""
    return trained[0]


@pytest.fixture
def copied(finished: TrainConfig, tmp_path: Path) -> TrainConfig:
    """The same run, to be changed."""
    shutil.copytree(finished.folder, tmp_path / "run")
    return replace(finished, run=tmp_path / "run")


@pytest.fixture(scope="module")
def half_done(finished: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the same run, stopped after its first epoch; not to be changed."""
    config = replace(finished, run=tmp_path_factory.mktemp("half done") / "run")
    with pytest.raises(Stopped):
        train(config, stop_at(1, None))
    return config.folder


@pytest.fixture
def stopped(half_done: Path, finished: TrainConfig, cache: Path, tmp_path: Path) -> TrainConfig:
    """How to resume that run, in a copy of it and with a copy of the cache, both to be changed."""
    shutil.copytree(half_done, tmp_path / "run")
    return replace(finished, cache=str(cache), run=tmp_path / "run", resume=True)


# ---- what a run is


def test_a_run_holds_all_that_describes_it(finished: TrainConfig) -> None:
    assert {path.name for path in finished.folder.iterdir()} == FILES
    assert json.loads((finished.folder / "run.json").read_text())["status"] == "finished"


def test_the_configuration_of_a_run_is_a_recipe_for_it(finished: TrainConfig) -> None:
    recipe = load_recipe(finished.folder / "config.toml", "train")
    assert resolve(TrainConfig, recipe, {"run": finished.run}) == finished
    assert not {"run", "resume"} & set(recipe)


def test_epochs_are_reported_while_they_happen_and_recorded(
    trained: tuple[TrainConfig, TrainResult, list[Event]],
) -> None:
    _, result, events = trained
    started = events[0]
    assert isinstance(started, Started)
    n_images = (started.n_train, started.n_validation, started.n_test)
    assert sum(n_images) == 12
    assert min(n_images) > 0
    assert any("drawn for a test" in note for note in started.notes)
    steps = [event for event in events if isinstance(event, StepDone)]
    per_epoch = math.ceil(started.n_train / 4)
    assert [(event.epoch, event.step, event.steps) for event in steps] == [
        (epoch, step, per_epoch) for epoch in (1, 2) for step in range(1, per_epoch + 1)
    ]
    rows = [event.row for event in events if isinstance(event, EpochDone)]
    assert epochs(result.folder) == [vars(row) for row in rows]
    assert result.validation_dice == max(row.validation_dice for row in rows)
    assert result.epochs == result.epochs_trained == 2


def test_the_network_learns_to_tell_nuclei_from_the_ground(training: Configure) -> None:
    rows = []
    config = training(fusion="none", epochs=5, batch_size=2, learning_rate=2e-2)
    train(config, lambda event: rows.append(event.row) if isinstance(event, EpochDone) else None)
    assert rows[-1].train_loss < 0.3 * rows[0].train_loss
    assert max(row.validation_dice for row in rows) > 0.8


def scored(monkeypatch: pytest.MonkeyPatch, scores: list[float]) -> None:
    """Let the epochs have these validation Dices."""
    coming = iter(scores)
    monkeypatch.setattr(
        segmentation, "validate", lambda *args, **options: Scores(loss=1.0, dice=next(coming), n_images=1)
    )


def test_the_best_network_is_kept_and_of_equals_the_first(training: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    scored(monkeypatch, [0.2, 0.7, 0.7, 0.1])
    weights = []

    def on_event(event: Event) -> None:
        if isinstance(event, EpochDone):
            weights.append(last(training().folder)["model"])

    result = train(training(epochs=4), on_event)
    best = RunFolder(result.folder).load_checkpoint("best.pt")
    assert (result.best_epoch, result.validation_dice, best["epoch"]) == (2, 0.7, 2)
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in best["model"].items())
    assert not all(torch.equal(tensor, weights[3][name]) for name, tensor in best["model"].items())


def test_no_image_of_the_test_part_is_read(training: Configure, cache: Path) -> None:
    config = training(cache=str(cache), epochs=1)
    store = Store.open(cache / "synthetic.zarr")
    for sample_id in make_split(store, config).test:
        for chunk in (cache / "synthetic.zarr").glob(f"**/c/{store.row_of(sample_id)}/**/0"):
            if chunk.is_file():
                chunk.write_bytes(b"damaged")

    train(config)

    run = Run.open(config.folder)
    with pytest.raises(RowDamaged):
        list(run.predict(run.split.test))


def test_the_rule_is_chosen_on_the_validation_part_with_the_best_network(
    training: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = {}

    def choose(probabilities: list, truths: list, ignores: list, distances: list) -> InstanceRule:
        seen.update(probabilities=probabilities, truths=truths, ignores=ignores, distances=distances)
        return InstanceRule(threshold=0.35)

    monkeypatch.setattr(stage, "choose_rule", choose)
    result = train(training())
    run = Run.open(result.folder)
    predictions = list(run.predict(run.split.validation, device="cpu"))
    assert len(seen["probabilities"]) == len(predictions)
    for i, prediction in enumerate(predictions):
        height = prediction.sample.size[0]  # without the padding
        np.testing.assert_allclose(seen["probabilities"][i], prediction.probability[:height], atol=1e-5)
        assert np.array_equal(seen["truths"][i], prediction.sample.instances[:height])
        assert np.array_equal(seen["ignores"][i], prediction.sample.ignore[:height])
    assert seen["distances"] == []  # the network has no such head
    assert RunFolder(result.folder).rule() == result.rule == InstanceRule(threshold=0.35)


def test_the_pattern_is_the_mean_over_the_training_rows(finished: TrainConfig) -> None:
    parts = RunFolder(finished.folder).split()
    store = Store.open(f"{finished.cache}/synthetic.zarr")
    embeddings = store.embeddings(store.keys()[0]).read([store.row_of(sample_id) for sample_id in parts.train])
    pattern = np.load(finished.folder / "position.npy")
    np.testing.assert_allclose(pattern, embeddings.astype(np.float64).mean(0), atol=1e-6)


def test_without_guidance_the_store_needs_no_embeddings(training: Configure, cache: Path) -> None:
    store = Store.open(cache / "synthetic.zarr", mode="r+")
    store.delete_group(store.keys()[0].hash)
    result = train(training(cache=str(cache), fusion="none", encoder="vit_b", epochs=1))
    assert result.epochs_trained == 1
    assert RunFolder(result.folder).inputs().embedding == {}


def test_the_inputs_name_key_digests_and_versions(finished: TrainConfig) -> None:
    inputs = RunFolder(finished.folder).inputs()
    assert inputs.embedding["architecture"] == "random"
    assert inputs.samples["image [3]"] == [(3).to_bytes(32, "big").hex(), (1003).to_bytes(32, "big").hex()]
    assert len(inputs.samples) == 12
    assert inputs.versions["torch"] == torch.__version__
    assert Path(inputs.store).is_absolute()


def test_a_store_that_was_extended_is_divided_as_one_made_at_once(training: Configure, cache: Path) -> None:
    path = cache / "synthetic.zarr"
    whole = make_split(Store.open(path), training())
    samples = Store.open(path).read_samples(range(12))
    shutil.rmtree(path)
    store = Store.create(path, dataset="synthetic", source="", preparation={"side_px": "32"}, rows=samples[7:])
    store.append(samples[:7])
    assert make_split(store, training()) == whole


@pytest.mark.shared
def test_nuinsseg_is_divided_in_the_order_of_its_protocol(shared: Path) -> None:
    ids = [entry.id for entry in open_dataset("nuinsseg", shared / "data" / "nuinsseg").entries]
    assert sorted(ids, key=lambda sample_id: sample_id.split("/")) == ids


def test_a_vanished_image_is_in_no_part(training: Configure, cache: Path) -> None:
    Store.open(cache / "synthetic.zarr", mode="r+").set_present(4, present=False)
    parts = make_split(Store.open(cache / "synthetic.zarr"), training())
    ids = {*parts.train, *parts.validation, *parts.test}
    assert len(ids) == 11
    assert "image [4]" not in ids


# ---- stopping and resuming


def test_a_run_that_is_stopped_again_and_again_ends_as_if_it_had_not_been(
    finished: TrainConfig, training: Configure
) -> None:
    config = training(resume=True)
    for epoch, step in ((1, 1), (1, None), (2, 2), (2, None)):
        with pytest.raises(Stopped):
            train(config, stop_at(epoch, step))
    assert train(config).epochs_trained == 0
    assert_same_run(config.folder, finished.folder)


RENAMED = (
    "config.toml", "split.json", "inputs.json", "run.json", "position.npy", "last.pt", "best.pt", "epochs.csv",
)  # fmt: skip
"""The files of a run in the order in which the first epoch writes them."""


@pytest.mark.parametrize("name", ["run.json", "last.pt", "best.pt", "epochs.csv", "rule.json"])
def test_a_run_may_die_before_any_file_gets_its_name(
    finished: TrainConfig, training: Configure, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    with monkeypatch.context() as patched:
        die_before(patched, name)
        with pytest.raises(Stopped):
            train(training())
    present = {path.name for path in training().folder.iterdir()} & set(RENAMED)
    assert present == {*RENAMED[: RENAMED.index(name)]} if name in RENAMED else set(RENAMED)
    train(training(resume=True))
    assert_same_run(training().folder, finished.folder)


def die_before(patched: pytest.MonkeyPatch, name: str, call: int = 1) -> None:
    """Stop before the file of that name is renamed into place for the n-th time."""
    rename, calls = Path.replace, iter(range(1, 1000))

    def dying(path: Path, target: Path) -> Path:
        if Path(target).name == name and next(calls) == call:
            raise Stopped
        return rename(path, target)

    patched.setattr(Path, "replace", dying)


@pytest.mark.parametrize("name", ["last.pt", "best.pt"])
def test_a_run_agrees_with_its_history_although_a_repeated_epoch_turns_out_worse(
    training: Configure, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """As on a GPU, where the epoch after a kill is not repeated to the bit."""
    with monkeypatch.context() as patched:
        scored(patched, [0.5, 0.9])
        die_before(patched, name, call=2)
        with pytest.raises(Stopped):
            train(training(batch_size=8))
    scored(monkeypatch, [0.3])

    result = train(training(batch_size=8, resume=True))

    history = epochs(result.folder)
    best = max(history, key=lambda row: row["validation_dice"])
    assert (result.best_epoch, result.validation_dice) == (best["epoch"], best["validation_dice"])
    assert torch.load(result.folder / "best.pt", weights_only=True)["epoch"] == best["epoch"]


def test_a_best_network_of_another_epoch_is_refused(stopped: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    scored(monkeypatch, [-1.0])
    folder = RunFolder(stopped.folder)

    def on_event(event: Event) -> None:
        if isinstance(event, EpochDone):
            content = folder.load_checkpoint("best.pt")
            del content["format"], content["inputs"]
            folder.save_checkpoint("best.pt", {**content, "epoch": 2}, folder.inputs().fingerprint)

    with pytest.raises(ConfigError, match=r"best\.pt cannot be read: it is of epoch 2, and the best one is 1"):
        train(stopped, on_event)


KILLED = """
import os, signal, sys
from pathlib import Path
from nucseg_pipeline.config import TrainConfig
from nucseg_pipeline.config.recipe import load_recipe, resolve
from nucseg_pipeline.train.stage import train

replace, n_checkpoints = Path.replace, 0

def killing(self, target):
    global n_checkpoints
    n_checkpoints += Path(target).suffix == ".pt"
    if n_checkpoints == 3:
        print(*sys.modules, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    return replace(self, target)

Path.replace = killing
train(resolve(TrainConfig, load_recipe(sys.argv[1], "train"), {"run": Path(sys.argv[2])}))
"""
"""A training that kills itself before it gives the third checkpoint its name."""


@pytest.fixture(scope="module")
def killed(finished: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, set[str]]:
    """The folder of a run that was killed in its second epoch, and the modules it had loaded."""
    run = tmp_path_factory.mktemp("killed") / "run"
    command = [sys.executable, "-W", "error", "-c", KILLED, str(finished.folder / "config.toml"), str(run)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    return run, set(done.stdout.split())


def test_a_run_killed_while_it_writes_a_checkpoint_resumes(
    finished: TrainConfig, killed: tuple[Path, set[str]]
) -> None:
    run, _ = killed
    assert any(path.name.endswith(".part") for path in run.iterdir())
    assert RunFolder(run).status()["status"] == "training"
    assert train(replace(finished, run=run, resume=True)).epochs_trained == 1
    assert_same_run(run, finished.folder)
    assert {path.name for path in run.iterdir()} == FILES


def test_training_loads_neither_an_encoder_nor_the_command_line(killed: tuple[Path, set[str]]) -> None:
    _, modules = killed
    assert "nucseg.encoders" in modules
    for name in ("nucseg.encoders.sam", "nucseg.encoders.vit", "nucseg.encoders.onnx", "onnxruntime", "typer"):
        assert name not in modules


def test_a_finished_run_is_left_as_it_is(copied: TrainConfig) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in copied.folder.iterdir()}
    result = train(replace(copied, resume=True))
    assert result.epochs_trained == 0
    assert result.best_epoch == RunFolder(copied.folder).status()["best_epoch"]
    assert {path.name: path.stat().st_mtime_ns for path in copied.folder.iterdir()} == before


def test_a_longer_run_with_a_constant_schedule_continues_the_shorter_one(
    finished: TrainConfig, training: Configure
) -> None:
    train(training(epochs=1))
    result = train(training(resume=True))
    assert (result.epochs, result.epochs_trained) == (2, 1)
    assert_same_run(training().folder, finished.folder)


@pytest.mark.parametrize(
    ("wanted", "named"),
    [
        ({"width": 3, "seed": 1}, ("width: 2, asked for 3", "seed: 0, asked for 1")),
        ({"epochs": 1}, ("epochs: 2, asked for 1",)),
        ({"schedule": "cosine"}, ("schedule: constant, asked for cosine",)),
    ],
)
def test_resuming_with_another_configuration_is_refused_by_its_fields(
    stopped: TrainConfig, wanted: dict[str, object], named: tuple[str, ...]
) -> None:
    with pytest.raises(ConfigError) as refused:
        train(replace(stopped, **wanted))
    assert all(name in str(refused.value) for name in named)
    assert "--recipe" in str(refused.value)


def test_a_longer_run_with_a_cosine_schedule_is_another_run(stopped: TrainConfig) -> None:
    RunFolder(stopped.folder).write_config(replace(stopped, schedule="cosine"))
    with pytest.raises(ConfigError, match="epochs: 2, asked for 3"):
        train(replace(stopped, schedule="cosine", epochs=3))


def test_a_run_may_resume_elsewhere_and_with_its_rows_on_disk(finished: TrainConfig, stopped: TrainConfig) -> None:
    train(replace(stopped, preload="off"))
    assert_same_run(stopped.folder, finished.folder)


def test_a_folder_with_a_run_is_not_overwritten(copied: TrainConfig) -> None:
    with pytest.raises(ConfigError, match=r"already contains a run.*--resume"):
        train(copied)


def test_a_folder_with_something_else_is_not_written_to(training: Configure, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").touch()
    for resume in (False, True):
        with pytest.raises(ConfigError, match=r"not a run: thesis\.tex"):
            train(training(resume=resume))
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["thesis.tex"]


def test_two_trainings_do_not_share_a_folder(training: Configure) -> None:
    def meddle(event: Event) -> None:
        with pytest.raises(ConfigError, match="Another process is training in"), RunFolder(training().folder).lock():
            pass

    train(training(epochs=1, fusion="none"), meddle)


# ---- what changed in between


def edit(config: TrainConfig, sample_id: str, **changed: object) -> None:
    store = Store.open(store_location(config.cache, config.dataset), mode="r+")
    row = store.row_of(sample_id)
    store.replace(row, replace(store.read_samples([row])[0], **changed))


@pytest.mark.parametrize("part", ["train", "validation"])
def test_resuming_after_masks_have_changed_is_refused_by_their_ids(stopped: TrainConfig, part: str) -> None:
    changed = getattr(RunFolder(stopped.folder).split(), part)[0]
    edit(stopped, changed, mask_digest=bytes(32))
    with pytest.raises(ConfigError) as refused:
        train(stopped)
    assert changed in str(refused.value)
    assert "has changed" in str(refused.value)


def test_changed_test_images_and_new_images_stop_no_run_and_leave_its_parts(stopped: TrainConfig) -> None:
    before = RunFolder(stopped.folder).split()
    edit(stopped, before.test[0], mask_digest=bytes(32))
    store = Store.open(store_location(stopped.cache, stopped.dataset), mode="r+")
    store.append([replace(store.read_samples([0])[0], id="new", group="new")])
    assert train(stopped).epochs_trained == 1
    assert RunFolder(stopped.folder).split() == before


def test_resuming_with_other_embeddings_is_refused_by_their_fields(stopped: TrainConfig) -> None:
    store = Store.open(store_location(stopped.cache, stopped.dataset), mode="r+")
    old = store.keys()[0]
    new = store.embeddings(Key({**old.fields, "precision": "bfloat16"}))
    new.write(range(12), store.embeddings(old).read(range(12)))
    with pytest.raises(ConfigError, match=r"'precision': 'float32'.*'precision': 'bfloat16'"):
        train(replace(stopped, precision="bfloat16"))


def test_a_truncated_checkpoint_stops_the_resume_with_the_way_out(stopped: TrainConfig) -> None:
    checkpoint = stopped.folder / "last.pt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:5000])
    with pytest.raises(ConfigError, match=r"last\.pt cannot be read"):
        train(stopped)


def test_a_checkpoint_of_another_network_is_refused(stopped: TrainConfig) -> None:
    folder = RunFolder(stopped.folder)
    content = {name: value for name, value in last(stopped.folder).items() if name not in ("format", "inputs")}
    other = build_network(replace(stopped, width=3)).state_dict()
    folder.save_checkpoint("last.pt", {**content, "model": other}, folder.inputs().fingerprint)
    with pytest.raises(ConfigError, match="of another network"):
        train(stopped)


@pytest.mark.parametrize("name", ["split.json", "config.toml"])
def test_resuming_after_a_file_of_the_run_was_edited_is_refused_by_its_name(stopped: TrainConfig, name: str) -> None:
    folder = RunFolder(stopped.folder)
    if name == "split.json":
        parts = folder.split()
        moved = replace(parts, train=parts.train[1:], test=(*parts.test, parts.train[0]))
        folder.file(name).write_text(json.dumps(asdict(moved)))
        edited = stopped
    else:
        edited = replace(stopped, learning_rate=1e-2)
        folder.write_config(edited)

    with pytest.raises(ConfigError, match=rf"{name} cannot be read: it was changed after the run was started"):
        train(edited)


def test_resuming_with_other_code_is_reported_at_once_and_recorded(
    stopped: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    started_with = RunFolder(stopped.folder).inputs().code
    monkeypatch.setattr("nucseg_pipeline.runs.provenance.code_digest", lambda: "f" * 64)
    events: list[Event] = []

    train(stopped, events.append)

    line = f"nucseg's code {started_with[:8]} then, ffffffff now"
    assert any(line in note for event in events if isinstance(event, Started) for note in event.notes)
    assert RunFolder(stopped.folder).changed() == [line]
    assert RunFolder(stopped.folder).inputs().code == started_with
    run = Run.open(stopped.folder)
    notes = report_warnings(test_sets.TestSet(run.store, {"run": run.split.test}, "", ()), group_runs({"run": run}))
    assert any(line in note for note in notes)


@pytest.mark.parametrize("name", ["split.json", "inputs.json", "run.json", "config.toml", "position.npy"])
def test_a_damaged_file_of_a_run_is_named(stopped: TrainConfig, name: str) -> None:
    (stopped.folder / name).write_text("{")
    with pytest.raises(ConfigError, match=name.replace(".", r"\.")):
        train(stopped)


# ---- what cannot be trained


def at_step(monkeypatch: pytest.MonkeyPatch, number: int, happens: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Let something happen to the loss of the n-th step."""
    forward, steps = Objective.forward, iter(range(1, 1000))

    def patched(*args: Any) -> torch.Tensor:
        loss = forward(*args)
        return happens(loss) if next(steps) == number else loss

    monkeypatch.setattr(Objective, "forward", patched)


def test_a_loss_that_is_not_finite_stops_by_epoch_and_step_and_keeps_the_last_checkpoint(
    stopped: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_step(monkeypatch, 2, lambda loss: loss * float("nan"))
    with pytest.raises(
        TrainingError, match=r"loss became nan in epoch 2, step 2 of \d\. The checkpoint of epoch 1 is kept.*--run"
    ):
        train(stopped)
    assert len(last(stopped.folder)["history"]) == 1


def test_a_step_without_memory_stops_with_the_way_out_and_the_run_resumes_once_there_is_some(
    stopped: TrainConfig, finished: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(loss: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    with monkeypatch.context() as patched:
        at_step(patched, 2, full)
        with pytest.raises(
            TrainingError, match=r"step with \d image.*\(CUDA out of .* 2 GiB\).*--resume.*smaller --batch-size"
        ):
            train(stopped)

    train(stopped)
    assert_same_run(stopped.folder, finished.folder)


def test_a_full_disk_stops_with_the_advice_of_this_command(
    training: Configure, full_disk: Callable[[str], Any]
) -> None:
    with (
        full_disk("last.pt"),
        pytest.raises(
            TrainingError,
            match=r"last\.pt cannot be written: No space left on device\. .*the same command with --resume",
        ),
    ):
        train(training(epochs=1, fusion="none"))


@pytest.mark.parametrize("part", ["train", "validation"])
def test_a_part_in_which_every_pixel_is_ignored_is_refused_before_anything_is_written(
    training: Configure, cache: Path, part: str
) -> None:
    """micro-sam #1012: a training on it ran with a loss of 0, and reported a Dice of 1."""
    config = training(cache=str(cache), fusion="none")
    store = Store.open(cache / "synthetic.zarr", mode="r+")
    ids = getattr(make_split(store, config), part)
    for image_id in ids:
        ignore_everything(store, image_id)
    word = {"train": "training"}.get(part, part)

    with pytest.raises(
        DataError, match=rf"Every pixel is ignored in all {word} images in .* \({len(ids)}: .*nucseg embed"
    ):
        train(config)
    assert not config.folder.exists()


def test_an_image_in_which_every_pixel_is_ignored_is_not_validated_on(
    training: Configure, cache: Path, tmp_path: Path
) -> None:
    config = training(cache=str(cache), fusion="none", epochs=1, run=tmp_path / "fewer")
    store = Store.open(cache / "synthetic.zarr", mode="r+")
    ignored = make_split(store, config).validation[0]
    ignore_everything(store, ignored)
    dice = train(config).validation_dice
    predictions = list(
        Run.open(config.folder, cache=str(cache)).predict(make_split(store, config).validation, device="cpu")
    )
    scored = [p for p in predictions if p.sample.id != ignored]

    counted = [~p.sample.ignore for p in scored]
    truths = [p.sample.instances[c] > 0 for p, c in zip(scored, counted, strict=True)]
    found = [p.probability[c] >= 0.5 for p, c in zip(scored, counted, strict=True)]
    assert dice == pytest.approx(np.mean([f1_score(*pair) for pair in zip(truths, found, strict=True)]), abs=1e-6)


def test_a_learning_rate_beyond_all_bounds_is_noticed(training: Configure) -> None:
    with pytest.raises(TrainingError, match="lower --learning-rate"):
        train(training(learning_rate=1e30, epochs=4))


def test_a_damaged_row_is_named_before_anything_is_written(training: Configure, cache: Path) -> None:
    config = training(cache=str(cache))
    store = Store.open(cache / "synthetic.zarr")
    row = store.row_of(make_split(store, config).train[0])
    values = next((cache / "synthetic.zarr" / "embeddings").glob(f"*/identity/values/c/{row}/0/0/0"))
    values.write_bytes(values.read_bytes()[:-1])
    with pytest.raises(RowDamaged, match=f"row {row} "):
        train(config)
    assert not config.folder.exists()


def test_missing_embeddings_are_counted_and_the_way_out_named(training: Configure, cache: Path) -> None:
    store = Store.open(cache / "synthetic.zarr", mode="r+")
    store.embeddings(store.keys()[0]).clear([2, 9])
    with pytest.raises(ConfigError, match=r"2 of 12 images .*image \[2\], image \[9\].*nucseg embed"):
        train(training(cache=str(cache)))
    assert not training().folder.exists()


def test_embeddings_of_another_encoder_are_not_taken(training: Configure) -> None:
    with pytest.raises(EmbeddingNotFound, match="architecture: cached random, asked for vit_b"):
        train(training(encoder="vit_b"))


def test_a_missing_store_is_named(training: Configure) -> None:
    with pytest.raises(StoreNotFound, match=r"nowhere\.zarr"):
        train(training(dataset="nowhere"))


@pytest.mark.parametrize(
    ("wanted", "named"),
    [
        ({"device": "cuda:9"}, "CUDA"),
        ({"mixed_precision": "fp16"}, "CUDA"),
        ({"model": "u"}, "u"),
        ({"run": Path("mine/runs/a"), "fold": 99}, "fold"),
    ],
)
def test_what_cannot_be_trained_leaves_no_folder(
    training: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wanted: dict[str, object], named: str
) -> None:
    (tmp_path / "here" / "mine").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(ConfigError, match=named):
        train(training(**wanted))
    assert not training().folder.exists()
    assert [path.name for path in Path().rglob("*")] == ["mine"]


def test_a_batch_that_processes_cannot_share_evenly_is_refused(
    training: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(ConfigError, match="multiple of their number, 3; got 4"):
        train(training(batch_size=4))


def test_runs_of_different_precision_may_follow_each_other_in_one_process(
    finished: TrainConfig, training: Configure, tmp_path: Path
) -> None:
    half, whole = (training(epochs=1, mixed_precision=name, run=tmp_path / name) for name in ("bf16", "no"))
    train(half)
    train(whole)
    first = timeless(last(finished.folder)["history"])[:1]
    assert timeless(last(whole.folder)["history"]) == first
    assert timeless(last(half.folder)["history"]) != first
    assert all(tensor.dtype in (torch.float32, torch.int64) for tensor in last(half.folder)["model"].values())


# ---- the learning rate


def test_a_cosine_schedule_falls_as_torchs_does() -> None:
    config = TrainConfig(dataset="synthetic", learning_rate=1e-2, epochs=10, schedule="cosine")
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1e-2)
    reference = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=10)
    for epoch in range(11):
        assert learning_rate(config, epoch) == pytest.approx(reference.get_last_lr()[0], abs=1e-12)
        optimizer.step()
        reference.step()


def test_a_constant_schedule_stays() -> None:
    config = TrainConfig(dataset="synthetic", learning_rate=1e-2)
    assert {learning_rate(config, epoch) for epoch in (0, 0.5, 49)} == {1e-2}
