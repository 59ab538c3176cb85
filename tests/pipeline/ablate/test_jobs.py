"""Trainings in processes of their own: one that fails, or is killed, takes no other along."""

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from nucseg_pipeline.ablate.jobs import JobResult, Processes, Told, is_finished, train_all
from nucseg_pipeline.config import TrainConfig
from nucseg_pipeline.train.stage import train


def quietly(*_: object) -> None:
    """Listen to nothing."""


class Sleeping:
    """Trains nothing: ends when it is told to stop."""

    def __init__(self) -> None:
        self.stopped, self.threads = threading.Event(), []

    def train(self, run: TrainConfig, log: Path, told: Told) -> str:
        self.threads.append(run.threads)
        assert self.stopped.wait(20)
        return "interrupted"

    def stop(self) -> None:
        self.stopped.set()


def test_a_training_in_a_process_of_its_own_ends_finished(training: Callable[..., TrainConfig], tmp_path: Path) -> None:
    run, lines, log = training(epochs=1, fusion="none"), [], tmp_path / "logs" / "run.log"

    error = Processes().train(run, log, lambda of, line: lines.append((of, line)))

    assert error == ""
    assert is_finished(run)
    assert any(of is run and line.startswith("epoch 1/1") for of, line in lines)
    assert "epoch 1/1" in log.read_text()


def test_what_a_training_refuses_comes_back_as_its_reason(
    training: Callable[..., TrainConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    error = Processes().train(training(model="unet9"), tmp_path / "log", quietly)

    assert "Model 'unet9' is not known" in error
    assert str(tmp_path / "log") in error


def test_a_training_that_is_killed_says_by_what(training: Callable[..., TrainConfig], tmp_path: Path) -> None:
    processes = Processes()

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
    trainer, started = Sleeping(), []

    def start(run: TrainConfig) -> None:
        started.append(run.name)
        if len(started) == 2:
            threading.Timer(0.3, trainer.stop).start()

    outcomes = train_all(runs, jobs=2, logs=tmp_path, started=start, told=quietly, ended=quietly, trainer=trainer)

    assert trainer.threads[:2] == [3, 3]
    assert started == ["a", "b", "c"]
    assert {outcome.error for outcome in outcomes.values()} == {"interrupted"}


def test_an_interrupt_stops_what_runs_and_starts_nothing_more(
    training: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    runs = [replace(training(), run=tmp_path / name) for name in "abc"]
    trainer, started = Sleeping(), []

    def start(run: TrainConfig) -> None:
        started.append(run.name)
        if len(started) == 2:
            raise KeyboardInterrupt

    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        train_all(runs, jobs=2, logs=tmp_path, started=start, told=quietly, ended=quietly, trainer=trainer)

    assert trainer.stopped.is_set()
    assert started == ["a", "b"]
    assert time.monotonic() - began < 10


def test_a_run_that_another_process_trains_is_waited_for(
    training: Callable[..., TrainConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nucseg_pipeline.ablate.jobs.HELD_SECONDS", 0.0)
    tries: list[str] = []

    class Held(Sleeping):
        def train(self, run: TrainConfig, log: Path, told: Told) -> str:
            tries.append(run.name)
            if len(tries) < 3:
                return "Another process is training in it. Wait for it."
            train(run)
            return ""

    run = training(epochs=1, fusion="none")
    outcomes = train_all([run], jobs=1, logs=tmp_path, started=quietly, told=quietly, ended=quietly, trainer=Held())

    assert len(tries) == 3
    assert outcomes[run.folder].error == ""


def test_a_log_that_cannot_be_written_costs_no_training(training: Callable[..., TrainConfig], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    run = training(epochs=1, fusion="none")

    assert Processes().train(run, tmp_path / "file" / "run.log", quietly) == ""
    assert is_finished(run)


def test_nothing_starts_after_a_stop(training: Callable[..., TrainConfig], tmp_path: Path) -> None:
    processes = Processes()
    processes.stop()

    assert "interrupted" in processes.train(training(), tmp_path / "log", quietly)
    assert not training().folder.exists()


def test_a_training_that_ends_without_a_finished_run_has_failed(
    training: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    class Idle(Sleeping):
        def train(self, run: TrainConfig, log: Path, told: Told) -> str:
            return ""

    ended: list[JobResult] = []
    train_all(
        [training()],
        jobs=1,
        logs=tmp_path,
        started=quietly,
        told=quietly,
        ended=lambda run, outcome: ended.append(outcome),
        trainer=Idle(),
    )

    assert "holds no finished run" in ended[0].error
