"""Trainings one by one or side by side, each in a process of its own: one that crashes takes no other along."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from nucseg.errors import ConfigError
from nucseg_pipeline.config import TrainConfig
from nucseg_pipeline.config.recipe import to_toml
from nucseg_pipeline.runs.folder import RunFolder

HELD = "Another process is training in"
"""How a training begins to say that its folder is held."""

HELD_SECONDS = 5.0
"""How long a held run is left alone before it is looked at again."""


@dataclass(frozen=True)
class JobResult:
    """How one training ended."""

    run: Path
    seconds: float
    """Wall time of this call; 0 where the run was finished before."""
    error: str = ""
    """Why it failed; empty if it is finished."""


Started = Callable[[TrainConfig], None]
Told = Callable[[TrainConfig, str], None]
"""Called with a training and a line that it printed."""


class TrainingRunner(Protocol):
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
    except (ConfigError, OSError):
        return False


def train_all(
    runs: Sequence[TrainConfig],
    *,
    jobs: int,
    logs: Path,
    started: Started,
    told: Told,
    ended: Callable[[TrainConfig, JobResult], None],
    trainer: TrainingRunner | None = None,
) -> dict[Path, JobResult]:
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
    outcomes = {run.folder: JobResult(run.folder, 0.0) for run in runs if is_finished(run)}
    left = [run for run in runs if run.folder not in outcomes]
    threads = max(1, n_cores() // jobs)
    trainer = trainer or Processes()
    pool = ThreadPoolExecutor(jobs)
    running: dict[Future[JobResult], TrainConfig] = {}
    try:
        while left or running:
            while left and len(running) < jobs:
                run = left.pop(0)
                shared = run if run.threads is not None or jobs == 1 else replace(run, threads=threads)
                started(run)
                running[pool.submit(_one, shared, logs / f"{run.name}.log", told, trainer)] = run
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                run, outcome = running.pop(future), future.result()
                if HELD in outcome.error and not is_finished(run):
                    time.sleep(HELD_SECONDS)
                    left.append(run)  # another table trains it, or an orphan of an earlier one: it is waited for
                    continue
                outcomes[run.folder] = replace(outcome, error="") if HELD in outcome.error else outcome
                ended(run, outcomes[run.folder])
    finally:
        if running:  # interrupted: they end with what they have finished on the disk
            trainer.stop()
        pool.shutdown(wait=True, cancel_futures=True)
    return outcomes


def _one(run: TrainConfig, log: Path, told: Told, trainer: TrainingRunner) -> JobResult:
    began = time.monotonic()
    try:
        error = trainer.train(run, log, told)
    except OSError as problem:
        error = f"it could not be started: {problem}"
    seconds = time.monotonic() - began
    if not error and not is_finished(run):
        error = f"it ended, but {run.folder} holds no finished run"
    return JobResult(run.folder, seconds, error)


class Processes:
    """Runs `nucseg train` in a process for each training."""

    def __init__(self) -> None:
        self._running: set[subprocess.Popen[str]] = set()
        self._stopped = False
        self._lock = threading.Lock()

    def train(self, run: TrainConfig, log: Path, told: Told) -> str:
        """See `TrainingRunner`."""
        lines: list[str] = []
        write = _log(log)
        with tempfile.TemporaryDirectory(prefix="nucseg-") as folder:
            recipe = Path(folder) / "train.toml"
            recipe.write_text(to_toml(run, without=("run", "resume")), encoding="utf-8")
            command = [sys.executable, "-m", "nucseg_pipeline", "train", "--recipe", str(recipe)]
            process = self._start([*command, "--run", str(run.folder.absolute()), "--resume"])
            if process is None:
                return "it was interrupted before it began"
            with process:
                try:
                    for line in process.stdout or ():
                        lines.append(line.rstrip())
                        write(line)
                        told(run, line.rstrip())
                except BaseException:
                    process.send_signal(signal.SIGINT)
                    raise
                finally:
                    process.wait()
                    self._running.discard(process)
        return _why(process.returncode, lines, log)

    def stop(self) -> None:
        """See `TrainingRunner`."""
        with self._lock:
            self._stopped = True
            for process in self._running:
                process.send_signal(signal.SIGINT)

    def _start(self, command: Sequence[str]) -> subprocess.Popen[str] | None:
        """Start a process that is known to `stop`; None after it was called."""
        # a terminal's colours would hide what a line begins with
        environment = {
            name: value for name, value in os.environ.items() if name not in ("FORCE_COLOR", "TTY_COMPATIBLE")
        }
        with self._lock:
            if self._stopped:
                return None
            process = subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                encoding="utf-8",
                errors="replace",
                env={**environment, "NO_COLOR": "1", "TERM": "dumb"},
            )
            self._running.add(process)
            return process


def _log(path: Path) -> Callable[[str], None]:
    """What adds lines to a new file; where it cannot be written, nothing is lost but the log."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)

    def write(line: str) -> None:
        with contextlib.suppress(OSError), path.open("a", encoding="utf-8") as file:
            file.write(line)

    return write


def n_cores() -> int:
    """CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _why(status: int, lines: Sequence[str], log: Path) -> str:
    """Why a training failed, from how its process ended and what it printed; empty if it did not fail."""
    if status == 0:
        return ""
    if status < 0:
        name = str(-status)
        with contextlib.suppress(ValueError):
            name = signal.Signals(-status).name
        memory = ", which is what happens when memory runs out" if name == "SIGKILL" else ""
        return f"it was killed by {name}{memory}; its output is in {log}"
    errors = [position for position, line in enumerate(lines) if line.startswith("error:")]
    told = " ".join(lines[errors[-1] :]).removeprefix("error:").strip() if errors else f"exit status {status}"
    return f"{told} (all of its output is in {log})"
