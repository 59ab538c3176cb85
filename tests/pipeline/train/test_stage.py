"""Training leaves a run behind, and a run that was stopped anywhere ends as if it had not been."""

import csv
import fcntl
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

from nucseg.data import open_dataset
from nucseg.errors import ConfigError, TrainingError
from nucseg.nuclei.instances import InstanceRule
from nucseg_cache import EmbeddingNotFound, Embeddings, Key, RowDamaged, Store, StoreNotFound
from nucseg_pipeline.config import TrainConfig, store_location
from nucseg_pipeline.config.recipe import load_recipe, resolve
from nucseg_pipeline.evaluation import test_sets
from nucseg_pipeline.evaluation.experiments import group_runs
from nucseg_pipeline.report.warnings import report_warnings
from nucseg_pipeline.runs.checkpoint import load_checkpoint, save_checkpoint
from nucseg_pipeline.runs.folder import RunFolder
from nucseg_pipeline.runs.run import Run
from nucseg_pipeline.runs.selection import make_split
from nucseg_pipeline.train import stage
from nucseg_pipeline.train.events import EpochDone, Event, Started, StepDone
from nucseg_pipeline.train.objective import Objective
from nucseg_pipeline.train.stage import train
from nucseg_pipeline.train.trainer import learning_rate

Configure = Callable[..., TrainConfig]
FILES = {
    "config.toml", "split.json", "inputs.json", "run.json", "position.npy", "epochs.csv", "last.pt", "best.pt",
    "rule.json",
}  # fmt: skip


class Stopped(Exception):
    """What a test's callback raises where a user would press Ctrl-C."""


def stop_at(epoch: int, step: int | None) -> Callable[[Event], None]:
    """A callback that stops at a step, or with step None once the epoch is finished."""

    def progress(event: Event) -> None:
        at_step = isinstance(event, StepDone) and (event.epoch, event.step) == (epoch, step)
        if at_step or (step is None and isinstance(event, EpochDone) and event.row.epoch == epoch):
            raise Stopped

    return progress


def last(folder: Path) -> dict[str, object]:
    return load_checkpoint(folder / "last.pt", RunFolder(folder).inputs().fingerprint)


def assert_same_run(one: Path, other: Path) -> None:
    """Weights, optimiser, choices and history are the same to the last bit; wall times may differ."""
    first, second = last(one), last(other)
    for name, tensor in first["model"].items():
        assert torch.equal(tensor, second["model"][name]), name
    for number, state in first["optimizer"]["state"].items():
        for name, tensor in state.items():
            assert torch.equal(tensor, second["optimizer"]["state"][number][name]), (number, name)
    assert timeless(first["history"]) == timeless(second["history"])
    for name in ("best.pt", "position.npy", "rule.json", "split.json", "run.json"):
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


def timeless(history: object) -> list[dict[str, float]]:
    return [{name: value for name, value in row.items() if name != "seconds"} for row in history]


@pytest.fixture(scope="module", autouse=True)
def quick_rule() -> Iterator[None]:
    """Choosing a rule takes as long as training here; this one is as sensitive to the probabilities."""

    def choose(probabilities: list[np.ndarray], *others: object) -> InstanceRule:
        return InstanceRule(threshold=float(np.mean(probabilities)))

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(stage, "choose_rule", choose)
        yield


@pytest.fixture(scope="module")
def finished(pristine_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    """A run of two epochs that nothing disturbed; not to be changed."""
    config = TrainConfig(
        dataset="synthetic", cache=str(pristine_cache), encoder="random", width=2, epochs=2, batch_size=4,
        learning_rate=3e-3, device="cpu", threads=1, run=tmp_path_factory.mktemp("runs") / "run",
    )  # fmt: skip
    train(config)
    return config


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
    """How to go on with that run, in a copy of it and with a copy of the cache, both to be changed."""
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


def test_the_epochs_are_told_while_they_happen_and_written_down(training: Configure) -> None:
    events: list[Event] = []
    result = train(training(), events.append)

    started = events[0]
    assert isinstance(started, Started)
    n_images = (started.n_train, started.n_validation, started.n_test)
    assert sum(n_images) == 12
    assert min(n_images) > 0
    assert any("drawn for a test" in note for note in started.notes)
    steps = [event for event in events if isinstance(event, StepDone)]
    per_epoch = math.ceil(started.n_train / 4)
    assert [(s.epoch, s.step, s.steps) for s in steps] == [
        (epoch, step, per_epoch) for epoch in (1, 2) for step in range(1, per_epoch + 1)
    ]
    rows = [event.row for event in events if isinstance(event, EpochDone)]
    with (result.folder / "epochs.csv").open() as file:
        written = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    assert written == [vars(row) for row in rows]
    assert result.validation_dice == max(row.validation_dice for row in rows)
    assert result.epochs == result.epochs_trained == 2


def test_the_network_learns_to_tell_nuclei_from_the_ground(training: Configure) -> None:
    rows = []
    config = training(fusion="none", epochs=5, batch_size=2, learning_rate=2e-2)
    train(config, lambda event: rows.append(event.row) if isinstance(event, EpochDone) else None)
    assert rows[-1].train_loss < 0.3 * rows[0].train_loss
    assert max(row.validation_dice for row in rows) > 0.8


def test_the_best_network_is_kept_and_of_equals_the_first(training: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = iter([0.2, 0.7, 0.7, 0.1])

    def score(*args: object, **kwargs: object) -> object:
        from nucseg_pipeline.modelling.inference import Scores

        return Scores(loss=1.0, dice=next(scores), n_images=1)

    monkeypatch.setattr("nucseg_pipeline.train.trainer.validate", score)
    weights = []

    def progress(event: Event) -> None:
        if isinstance(event, EpochDone):
            weights.append(last(training().folder)["model"])

    result = train(training(epochs=4), progress)
    best = load_checkpoint(result.folder / "best.pt", RunFolder(result.folder).inputs().fingerprint)
    assert (result.best_epoch, result.validation_dice, best["epoch"]) == (2, 0.7, 2)
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in best["model"].items())
    assert not all(torch.equal(tensor, weights[3][name]) for name, tensor in best["model"].items())


def test_no_image_of_the_test_part_is_read(training: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    read: set[int] = set()

    def watch(owner: type, name: str) -> None:
        original = getattr(owner, name)

        def watched(self: object, rows: object, **options: object) -> object:
            read.update(rows)
            return original(self, rows, **options)

        monkeypatch.setattr(owner, name, watched)

    watch(Store, "try_read_samples")
    watch(Embeddings, "try_read_stored")
    config = training(epochs=1)
    train(config)
    parts = RunFolder(config.folder).split()
    assert {f"image [{row}]" for row in read} == {*parts.train, *parts.validation}
    assert parts.test


def test_the_rule_is_chosen_on_the_validation_part_with_the_best_network(
    training: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = {}

    def choose(probabilities: list, truths: list, ignores: list, distances: list) -> InstanceRule:
        seen.update(probabilities=probabilities, truths=truths, ignores=ignores, distances=distances)
        return InstanceRule(threshold=0.35)

    monkeypatch.setattr(stage, "choose_rule", choose)
    result = train(training())
    parts = RunFolder(result.folder).split()
    store = Store.open(f"{training().cache}/synthetic.zarr")
    samples = store.read_samples([store.row_of(one) for one in parts.validation])
    assert len(seen["probabilities"]) == len(samples)
    for sample, truth, ignore in zip(samples, seen["truths"], seen["ignores"], strict=True):
        assert np.array_equal(sample.instances[: sample.size[0]], truth)  # without the padding
        assert np.array_equal(sample.ignore[: sample.size[0]], ignore)
    assert seen["distances"] == []  # the network has no such head
    assert RunFolder(result.folder).rule() == result.rule == InstanceRule(threshold=0.35)


def test_the_pattern_is_the_mean_over_the_training_rows(finished: TrainConfig) -> None:
    parts = RunFolder(finished.folder).split()
    store = Store.open(f"{finished.cache}/synthetic.zarr")
    embeddings = store.embeddings(store.keys()[0]).read([store.row_of(one) for one in parts.train])
    pattern = np.load(finished.folder / "position.npy")
    np.testing.assert_allclose(pattern, embeddings.astype(np.float64).mean(0), atol=1e-6)


@pytest.mark.parametrize("wanted", [{"replay": "plain"}, {"augmentation": "none"}, {"fusion": "none"}])
def test_no_pattern_is_kept_where_nothing_uses_one(training: Configure, wanted: dict[str, str]) -> None:
    config = training(epochs=1, **wanted)
    train(config)
    assert {path.name for path in config.folder.iterdir()} == FILES - {"position.npy"}


def test_without_guidance_the_store_needs_no_embeddings(training: Configure, cache: Path) -> None:
    store = Store.open(cache / "synthetic.zarr", mode="r+")
    store.delete_embeddings(store.keys()[0])
    result = train(training(cache=str(cache), fusion="none", encoder="vit_b"))
    assert result.epochs_trained == 2
    assert RunFolder(result.folder).inputs().embedding == {}


def test_the_inputs_name_key_digests_and_versions(finished: TrainConfig) -> None:
    inputs = RunFolder(finished.folder).inputs()
    assert inputs.embedding["architecture"] == "random"
    assert inputs.samples["image [3]"] == [(3).to_bytes(32, "big").hex(), (1003).to_bytes(32, "big").hex()]
    assert len(inputs.samples) == 12
    assert inputs.versions["torch"] == torch.__version__
    assert Path(inputs.store).is_absolute()


def test_a_store_that_has_grown_is_divided_as_one_made_at_once(training: Configure, cache: Path) -> None:
    path = cache / "synthetic.zarr"
    whole = make_split(Store.open(path), training())
    samples = Store.open(path).read_samples(range(12))
    shutil.rmtree(path)
    store = Store.create(path, dataset="synthetic", source="", preparation={"side_px": "32"}, rows=samples[7:])
    store.append(samples[:7])
    assert make_split(store, training()) == whole


@pytest.mark.shared
def test_nuinsseg_is_divided_in_the_order_of_its_protocol(shared: Path) -> None:
    entries = open_dataset("nuinsseg", shared / "data" / "nuinsseg").entries
    assert sorted((entry.id for entry in entries), key=lambda one: one.split("/")) == [entry.id for entry in entries]


def test_a_vanished_image_is_never_trained_on(training: Configure, cache: Path) -> None:
    Store.open(cache / "synthetic.zarr", mode="r+").set_present(4, present=False)
    config = training(cache=str(cache), epochs=1)
    train(config)
    parts = RunFolder(config.folder).split()
    assert len([*parts.train, *parts.validation, *parts.test]) == 11
    assert "image [4]" not in {*parts.train, *parts.validation, *parts.test}


# ---- stopping and going on


@pytest.mark.parametrize(("epoch", "step"), [(1, 1), (1, None), (2, 2), (2, None)])
def test_a_stopped_run_goes_on_as_if_it_had_not_been(
    finished: TrainConfig, training: Configure, epoch: int, step: int | None
) -> None:
    config = training()
    with pytest.raises(Stopped):
        train(config, stop_at(epoch, step))
    result = train(replace(config, resume=True))
    assert_same_run(config.folder, finished.folder)
    assert result.epochs_trained == 2 - (epoch if step is None else epoch - 1)


def test_a_run_may_be_stopped_again_and_again(finished: TrainConfig, training: Configure) -> None:
    config = training(resume=True)
    for epoch, step in ((1, 2), (1, None), (2, 1)):
        with pytest.raises(Stopped):
            train(config, stop_at(epoch, step))
    train(config)
    assert_same_run(config.folder, finished.folder)


@pytest.mark.parametrize(
    ("owner", "name", "call"),
    [
        ("run_folder", "write_whole", 4),
        ("checkpoint", "write_whole", 2),
        ("run_folder", "write_whole", 5),
        ("train", "choose_rule", 1),
    ],
)
def test_a_run_may_die_between_any_two_files(
    finished: TrainConfig, training: Configure, monkeypatch: pytest.MonkeyPatch, owner: str, name: str, call: int
) -> None:
    config = training()
    module = sys.modules[f"nucseg_pipeline.{owner}"]
    original, calls = getattr(module, name), iter(range(1, 1000))

    def dying(*args: object, **kwargs: object) -> object:
        if next(calls) == call:
            raise Stopped
        return original(*args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(module, name, dying)
        with pytest.raises(Stopped):
            train(config)
    train(replace(config, resume=True))
    assert_same_run(config.folder, finished.folder)


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


def test_a_run_killed_while_it_writes_a_checkpoint_goes_on(
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


def test_a_longer_run_with_a_constant_schedule_goes_on_from_the_shorter_one(
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
def test_going_on_with_another_configuration_is_refused_by_its_fields(
    stopped: TrainConfig, wanted: dict[str, object], named: tuple[str, ...]
) -> None:
    with pytest.raises(ConfigError) as refused:
        train(replace(stopped, **wanted))
    assert all(name in str(refused.value) for name in named)
    assert "--recipe" in str(refused.value)


def test_a_longer_run_with_a_cosine_schedule_is_another_one(stopped: TrainConfig) -> None:
    RunFolder(stopped.folder).write_config(replace(stopped, schedule="cosine"))
    with pytest.raises(ConfigError, match="epochs: 2, asked for 3"):
        train(replace(stopped, schedule="cosine", epochs=3))


def test_a_run_may_go_on_elsewhere_and_with_its_rows_on_the_disk(finished: TrainConfig, stopped: TrainConfig) -> None:
    train(replace(stopped, preload="off"))
    assert_same_run(stopped.folder, finished.folder)


def test_a_folder_with_a_run_is_not_written_over(copied: TrainConfig) -> None:
    with pytest.raises(ConfigError, match=r"holds a run already.*--resume"):
        train(copied)


def test_a_folder_with_something_else_is_not_written_to(training: Configure, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").touch()
    for resume in (False, True):
        with pytest.raises(ConfigError, match="not a run"):
            train(training(resume=resume))
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["thesis.tex"]


def test_two_trainings_do_not_share_a_folder(training: Configure) -> None:
    def meddle(event: Event) -> None:
        with pytest.raises(ConfigError, match="Another process"), RunFolder(training().folder).held():
            pass

    train(training(epochs=1), meddle)


def test_a_training_that_is_refused_a_folder_does_not_take_it_away(training: Configure) -> None:
    folder = RunFolder(training().folder)
    with folder.held():
        with pytest.raises(ConfigError, match="Another process"), RunFolder(folder.path).held():
            pass
        assert folder.path.is_dir()
    assert not folder.path.exists()


def test_a_folder_that_goes_away_before_it_is_locked_is_made_again(
    training: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, flock, gone = RunFolder(training().folder), fcntl.flock, []

    def late(descriptor: int, operation: int) -> None:
        if not gone:  # a training that wrote nothing ends here
            gone.append(folder.path.rmdir())
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    with folder.held():
        assert folder.path.is_dir()
        with pytest.raises(ConfigError, match="Another process"), folder.held():
            pass


# ---- what changed in between


def edit(config: TrainConfig, sample_id: str, **changed: object) -> None:
    store = Store.open(store_location(config.cache, config.dataset), mode="r+")
    row = store.row_of(sample_id)
    store.replace(row, replace(store.read_samples([row])[0], **changed))


@pytest.mark.parametrize("part", ["train", "validation"])
def test_going_on_after_masks_have_changed_is_refused_by_their_ids(stopped: TrainConfig, part: str) -> None:
    changed = getattr(RunFolder(stopped.folder).split(), part)[0]
    edit(stopped, changed, mask_digest=bytes(32))
    with pytest.raises(ConfigError) as refused:
        train(stopped)
    assert changed in str(refused.value)
    assert "has changed" in str(refused.value)


def test_going_on_after_a_test_image_has_changed_is_fine(stopped: TrainConfig) -> None:
    edit(stopped, RunFolder(stopped.folder).split().test[0], mask_digest=bytes(32))
    assert train(stopped).epochs_trained == 1


def test_going_on_with_other_embeddings_is_refused_by_their_fields(stopped: TrainConfig) -> None:
    store = Store.open(store_location(stopped.cache, stopped.dataset), mode="r+")
    old = store.keys()[0]
    new = store.embeddings(Key({**old.fields, "precision": "bfloat16"}))
    new.write(range(12), store.embeddings(old).read(range(12)))
    with pytest.raises(ConfigError, match=r"'precision': 'float32'.*'precision': 'bfloat16'"):
        train(replace(stopped, precision="bfloat16"))


def test_images_added_in_between_leave_the_parts_as_they_were(stopped: TrainConfig) -> None:
    before = RunFolder(stopped.folder).split()
    store = Store.open(store_location(stopped.cache, stopped.dataset), mode="r+")
    store.append([replace(store.read_samples([0])[0], id="new", group="new")])
    assert train(stopped).epochs_trained == 1
    assert RunFolder(stopped.folder).split() == before


def test_a_truncated_checkpoint_stops_the_resume_with_the_way_out(copied: TrainConfig) -> None:
    RunFolder(copied.folder).write_status("training")
    checkpoint = copied.folder / "last.pt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:5000])
    with pytest.raises(ConfigError, match=r"last\.pt cannot be read"):
        train(replace(copied, resume=True))


def test_a_checkpoint_of_another_network_is_refused(copied: TrainConfig) -> None:
    folder = RunFolder(copied.folder)
    folder.write_status("training")
    config = replace(copied, width=3)
    folder.write_config(config)
    before = replace(folder.inputs(), split="", configuration="", code="")  # as the first runs of the format have it
    checkpoint = {name: value for name, value in last(copied.folder).items() if name not in ("format", "inputs")}
    (copied.folder / "inputs.json").write_text(before.to_json())
    (copied.folder / "position.npy").unlink()
    save_checkpoint(folder.file("last.pt"), checkpoint, before.fingerprint)
    with pytest.raises(ConfigError, match="of another network"):
        train(replace(config, resume=True))


@pytest.mark.parametrize("name", ["split.json", "config.toml"])
def test_going_on_after_a_file_of_the_run_was_edited_is_refused_by_its_name(stopped: TrainConfig, name: str) -> None:
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


def test_going_on_by_other_code_is_told_at_once_and_written_down(
    stopped: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun_by = RunFolder(stopped.folder).inputs().code
    monkeypatch.setattr("nucseg_pipeline.runs.provenance.code_digest", lambda: "f" * 64)
    told: list[Event] = []

    train(stopped, told.append)

    line = f"nucseg's code {begun_by[:8]} then, ffffffff now"
    assert any(line in note for event in told if isinstance(event, Started) for note in event.notes)
    assert RunFolder(stopped.folder).changed() == [line]
    assert RunFolder(stopped.folder).inputs().code == begun_by
    run = Run.open(stopped.folder)
    told_later = report_warnings(
        test_sets.TestSet(run.store, {"run": run.split.test}, "", ()), group_runs({"run": run})
    )
    assert any(line in note for note in told_later)


@pytest.mark.parametrize("name", ["split.json", "inputs.json", "run.json", "config.toml", "position.npy"])
def test_a_damaged_file_of_a_run_is_named(copied: TrainConfig, name: str) -> None:
    RunFolder(copied.folder).write_status("training")
    (copied.folder / name).write_text("{")
    with pytest.raises(ConfigError, match=name.replace(".", r"\.")):
        train(replace(copied, resume=True))


# ---- what cannot be trained


def test_a_loss_that_is_not_finite_stops_by_epoch_and_step_and_keeps_the_last_checkpoint(
    training: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses: Iterator[float] = iter([*[0.5] * 4, float("nan")])
    monkeypatch.setattr("nucseg_pipeline.train.trainer.Learner._step", lambda *args: next(losses))
    n_train = []

    def progress(event: Event) -> None:
        if isinstance(event, Started):
            n_train.append(event.n_train)

    config = training(batch_size=2)
    with pytest.raises(TrainingError, match=r"nan in epoch \d, step \d"):
        train(config, progress)
    assert len(last(config.folder)["history"]) == 4 // math.ceil(n_train[0] / 2)


def test_a_step_without_memory_for_it_stops_with_the_way_out_and_the_run_goes_on_once_there_is_some(
    stopped: TrainConfig, finished: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward, n_steps = Objective.forward, 0

    def full_at_the_second(*args: Any) -> torch.Tensor:
        nonlocal n_steps
        n_steps += 1
        if n_steps == 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return forward(*args)

    with monkeypatch.context() as patched:
        patched.setattr(Objective, "forward", full_at_the_second)
        with pytest.raises(
            TrainingError, match=r"step with \d image.*\(CUDA out of .* 2 GiB\).*--resume.*smaller --batch-size"
        ):
            train(stopped)

    train(stopped)
    assert_same_run(stopped.folder, finished.folder)


def test_an_infinite_learning_rate_in_effect_is_noticed(training: Configure) -> None:
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


def test_missing_embeddings_are_counted_and_the_way_out_told(training: Configure, cache: Path) -> None:
    store = Store.open(cache / "synthetic.zarr", mode="r+")
    store.embeddings(store.keys()[0]).clear([2, 9])
    with pytest.raises(ConfigError, match=r"2 of 12 images .*image \[2\], image \[9\].*nucseg embed"):
        train(training(cache=str(cache)))
    assert not training().folder.exists()


def test_embeddings_of_another_encoder_are_not_taken(training: Configure) -> None:
    with pytest.raises(EmbeddingNotFound, match="architecture: cached random, asked for vit_b"):
        train(training(encoder="vit_b"))


def test_a_store_that_is_not_there_is_named(training: Configure) -> None:
    with pytest.raises(StoreNotFound, match=r"nowhere\.zarr"):
        train(training(dataset="nowhere"))


@pytest.mark.parametrize(
    ("wanted", "told"), [({"device": "cuda:9"}, "CUDA"), ({"mixed_precision": "fp16"}, "CUDA"), ({"model": "u"}, "u")]
)
def test_what_this_machine_or_this_version_has_not_is_refused(
    training: Configure, wanted: dict[str, object], told: str
) -> None:
    with pytest.raises(ConfigError, match=told):
        train(training(**wanted))
    assert not training().folder.exists()


def test_a_batch_that_processes_cannot_share_evenly_is_refused(
    training: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(ConfigError, match="multiple of their number, 3; got 4"):
        train(training(batch_size=4))


def test_runs_of_different_precision_may_follow_each_other_in_one_process(
    finished: TrainConfig, training: Configure, tmp_path: Path
) -> None:
    half, whole = (training(epochs=1, mixed_precision=one, run=tmp_path / one) for one in ("bf16", "no"))
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


def test_a_training_that_is_refused_leaves_no_folders(training: Callable[..., TrainConfig], tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    config = training(run=tmp_path / "mine" / "runs" / "a", fold=99)

    with pytest.raises(ConfigError, match="fold"):
        train(config)

    assert not list((tmp_path / "mine").iterdir())
