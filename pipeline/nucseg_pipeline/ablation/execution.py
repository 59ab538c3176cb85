"""Trainings one by one or side by side, each in a process of its own: one that crashes takes no other along."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from nucseg.errors import ConfigError
from nucseg_pipeline.config import TrainConfig
from nucseg_pipeline.recipe import to_toml
from nucseg_pipeline.run_folder import RunFolder


@dataclass(frozen=True)
class Outcome:
    """How one training ended."""

    run: Path
    seconds: float
    """Wall time of this call; 0 where the run was finished before."""
    error: str = ""
    """Why it failed; empty if it is finished."""


Started = Callable[[TrainConfig], None]
Told = Callable[[TrainConfig, str], None]
"""Called with a training and a line that it printed."""


class Trainer(Protocol):
    """Runs trainings to their end."""

    def train(self, run: TrainConfig, log: Path, told: Told) -> str:
        """Train and log to a file; return why it failed, empty if it did not. Called from several threads."""

    def stop(self) -> None:
        """Interrupt what is running; what it has finished is kept."""


def is_finished(run: TrainConfig) -> bool:
    """Whether a run's folder holds its finished training."""
    folder = RunFolder(run.folder)
    try:
        return folder.file("run.json").exists() and folder.state(replace(run, resume=True)) == "finished"
    except ConfigError:
        return False


def train_all(
    runs: Sequence[TrainConfig],
    *,
    jobs: int,
    logs: Path,
    started: Started,
    told: Told,
    ended: Callable[[TrainConfig, Outcome], None],
    trainer: Trainer | None = None,
) -> dict[Path, Outcome]:
    """Train what is not finished yet; what was begun is gone on with.

    Args:
        runs: each once, in order.
        jobs: how many at a time.
        logs: folder of one log for each run.
        started: called before a training.
        told: called with every line that a training prints, from several threads.
        ended: called after it.
        trainer: how one is run; None takes `Processes`.

    Returns:
        Folder of the run -> how it ended.
    """
    outcomes = {run.folder: Outcome(run.folder, 0.0) for run in runs if is_finished(run)}
    left = [run for run in runs if run.folder not in outcomes]
    threads = max(1, (os.cpu_count() or 1) // jobs)
    trainer = trainer or Processes()
    pool = ThreadPoolExecutor(jobs)
    running: dict[Future[Outcome], TrainConfig] = {}
    try:
        while left or running:
            while left and len(running) < jobs:
                run = left.pop(0)
                shared = run if run.threads is not None or jobs == 1 else replace(run, threads=threads)
                started(run)
                running[pool.submit(_one, shared, logs / f"{run.name}.log", told, trainer)] = run
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                run = running.pop(future)
                outcomes[run.folder] = future.result()
                ended(run, outcomes[run.folder])
    finally:
        if running:  # interrupted: they end with what they have finished on the disk
            trainer.stop()
        pool.shutdown(wait=True, cancel_futures=True)
    return outcomes


def _one(run: TrainConfig, log: Path, told: Told, trainer: Trainer) -> Outcome:
    began = time.monotonic()
    try:
        error = trainer.train(run, log, told)
    except OSError as problem:
        error = f"it could not be started: {problem}"
    seconds = time.monotonic() - began
    if not error and not is_finished(run):
        error = f"it ended, but {run.folder} holds no finished run"
    return Outcome(run.folder, seconds, error)


class Processes:
    """Runs `nucseg train` in a process for each training."""

    def __init__(self) -> None:
        self._running: set[subprocess.Popen[str]] = set()

    def train(self, run: TrainConfig, log: Path, told: Told) -> str:
        """See `Trainer`."""
        log.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="nucseg-") as folder, log.open("w", encoding="utf-8") as lines:
            recipe = Path(folder) / "train.toml"
            recipe.write_text(to_toml(run, without=("run", "resume")), encoding="utf-8")
            command = [sys.executable, "-m", "nucseg_pipeline", "train", "--recipe", str(recipe)]
            command += ["--run", str(run.folder.absolute()), "--resume"]
            with subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, encoding="utf-8", errors="replace"
            ) as process:
                self._running.add(process)
                last_error = ""
                for line in process.stdout or ():
                    lines.write(line)
                    lines.flush()
                    last_error = line.removeprefix("error:").strip() if line.startswith("error:") else last_error
                    told(run, line.rstrip())
            self._running.discard(process)
        return _why(process.returncode, last_error, log)

    def stop(self) -> None:
        """See `Trainer`."""
        for process in list(self._running):
            process.send_signal(signal.SIGINT)


def _why(status: int, last_error: str, log: Path) -> str:
    if status == 0:
        return ""
    if status < 0:
        name = str(-status)
        with contextlib.suppress(ValueError):
            name = signal.Signals(-status).name
        memory = ", which is what happens when memory runs out" if name == "SIGKILL" else ""
        return f"it was killed by {name}{memory}; its output is in {log}"
    return f"{last_error or f'exit status {status}'} (all of its output is in {log})"
