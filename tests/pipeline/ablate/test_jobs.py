"""Trainings in their own processes: one that fails, or is killed, does not stop the others."""

import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from nucseg.errors import RunBusy
from nucseg_pipeline.ablate.jobs import JobResult, OnOutput, SubprocessRunner, is_finished, train_all
from nucseg_pipeline.config import TrainConfig
from nucseg_pipeline.files.locks import locked
from nucseg_pipeline.train.stage import train


def quietly(*_: object) -> None:
    """A callback that does nothing."""


train_quietly = partial(train_all, on_start=quietly, on_output=quietly, on_finish=quietly)


class Sleeping:
    """Trains nothing, and ends when it is stopped."""

    def __init__(self) -> None:
        self.stopped, self.threads = threading.Event(), []

    def train(self, run: TrainConfig, log: Path, on_output: OnOutput) -> str:
        self.threads.append(run.threads)
        assert self.stopped.wait(20)
        return "interrupted"

    def stop(self) -> None:
        self.stopped.set()


def test_a_training_in_a_process_of_its_own_ends_finished(training: Callable[..., TrainConfig], tmp_path: Path) -> None:
    run, lines, log = training(epochs=1, fusion="none"), [], tmp_path / "logs" / "run.log"

    error = SubprocessRunner().train(run, log, lambda trained, line: lines.append((trained, line)))

    assert error == ""
    assert is_finished(run)
    assert any(trained is run and line.startswith("epoch 1/1") for trained, line in lines)
    assert "epoch 1/1" in log.read_text()


def test_the_error_of_a_refused_training_is_its_reason(
    training: Callable[..., TrainConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    error = SubprocessRunner().train(training(model="unet9"), tmp_path / "log", quietly)

    assert "Model 'unet9' is not known" in error
    assert str(tmp_path / "log") in error


def test_the_signal_that_kills_a_training_is_its_reason(training: Callable[..., TrainConfig], tmp_path: Path) -> None:
    processes = SubprocessRunner()

    def kill(run: TrainConfig, line: str) -> None:
        for process in list(processes._running):
            process.kill()

    error = processes.train(training(epochs=50, fusion="none"), tmp_path / "log", kill)

    assert "SIGKILL" in error
    assert "memory" in error


def test_as_many_run_at_once_as_asked_and_share_the_cores(
    training: Callable[..., TrainConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nucseg_pipeline.ablate.jobs.n_cores", lambda: 6)
    runs = [replace(training(), run=tmp_path / name, threads=None) for name in "abc"]
    runner, started = Sleeping(), []

    def start(run: TrainConfig) -> None:
        started.append(run.name)
        if len(started) == 2:
            threading.Timer(0.3, runner.stop).start()

    results = train_quietly(runs, jobs=2, logs=tmp_path, on_start=start, runner=runner)

    assert runner.threads[:2] == [3, 3]
    assert started == ["a", "b", "c"]
    assert {result.error for result in results.values()} == {"interrupted"}


def test_an_interrupt_stops_what_runs_and_starts_nothing_more(
    training: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    runs = [replace(training(), run=tmp_path / name) for name in "abc"]
    runner, started = Sleeping(), []

    def start(run: TrainConfig) -> None:
        started.append(run.name)
        if len(started) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_quietly(runs, jobs=2, logs=tmp_path, on_start=start, runner=runner)

    assert runner.stopped.is_set()
    assert started == ["a", "b"]


def test_a_run_that_another_process_trains_is_tried_again_after_the_others(
    training: Callable[..., TrainConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nucseg_pipeline.ablate.jobs.RETRY_SECONDS", 0.0)
    tries: list[str] = []

    class Busy(Sleeping):
        def train(self, run: TrainConfig, log: Path, on_output: OnOutput) -> str:
            tries.append(run.name)
            if tries.count("held") < 3 and run.name == "held":
                raise RunBusy("another process trains it")
            train(run)
            return ""

    runs = [training(epochs=1, fusion="none", run=tmp_path / name) for name in ("held", "free")]
    results = train_quietly(runs, jobs=1, logs=tmp_path, runner=Busy())

    assert tries == ["held", "free", "held", "held"]
    assert [result.error for result in results.values()] == ["", ""]


def test_a_run_that_another_process_finishes_counts_as_finished_before(
    training: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    class Overtaken(Sleeping):
        def train(self, run: TrainConfig, log: Path, on_output: OnOutput) -> str:
            train(run)
            raise RunBusy("another process trains it")

    run = training(epochs=1, fusion="none")
    results = train_quietly([run], jobs=1, logs=tmp_path, runner=Overtaken())

    assert results == {run.folder: JobResult(run.folder, 0.0)}


def test_a_process_says_by_its_exit_status_that_a_run_is_busy(
    training: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    run = training(epochs=1, fusion="none")
    run.folder.mkdir()
    with locked(run.folder), pytest.raises(RunBusy, match="Another process is training"):
        SubprocessRunner().train(run, tmp_path / "log", quietly)


def test_a_log_that_cannot_be_written_costs_no_training(training: Callable[..., TrainConfig], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    run = training(epochs=1, fusion="none")

    assert SubprocessRunner().train(run, tmp_path / "file" / "run.log", quietly) == ""
    assert is_finished(run)


def test_nothing_starts_after_a_stop(training: Callable[..., TrainConfig], tmp_path: Path) -> None:
    processes = SubprocessRunner()
    processes.stop()

    assert "interrupted" in processes.train(training(), tmp_path / "log", quietly)
    assert not training().folder.exists()


def test_a_training_that_ends_without_a_finished_run_has_failed(
    training: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    class Idle(Sleeping):
        def train(self, run: TrainConfig, log: Path, on_output: OnOutput) -> str:
            return ""

    (result,) = train_quietly([training()], jobs=1, logs=tmp_path, runner=Idle()).values()

    assert "holds no finished run" in result.error
