"""Run trainings, several at a time if wanted, each in its own process: a crashed run does not stop the others."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path

from nucseg.errors import ConfigError, RunBusy
from nucseg_pipeline.config import TrainConfig
from nucseg_pipeline.config.recipe import to_toml
from nucseg_pipeline.runs.folder import RunFolder

RETRY_SECONDS = 5.0
"""Time until a run that another process is training is tried again."""


@dataclass(frozen=True)
class JobResult:
    """How one training ended."""

    run: Path
    seconds: float
    """Wall time of this call; 0 if the run was finished before, or by another process."""
    error: str = ""
    """Why it failed; empty if it is finished."""


OnOutput = Callable[[TrainConfig, str], None]
"""Called with a training and a line that it printed."""


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
    on_start: Callable[[TrainConfig], None],
    on_output: OnOutput,
    on_finish: Callable[[TrainConfig, JobResult], None],
    runner: SubprocessRunner | None = None,
) -> dict[Path, JobResult]:
    """Train the runs that are not finished yet; interrupted ones are resumed.

    A run that another process is training is tried again after the others; `jobs` run at a time, each with a log in
    the folder `logs`. `on_output` is called from several threads. Returns how each run ended, by its folder.
    """
    results = {run.folder: JobResult(run.folder, 0.0) for run in runs if is_finished(run)}
    waiting = deque(run for run in runs if run.folder not in results)
    runner = runner or SubprocessRunner()
    pool = ThreadPoolExecutor(jobs)
    running: dict[Future[JobResult | None], TrainConfig] = {}
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                run = waiting.popleft()
                on_start(run)
                log = logs / f"{run.name}.log"
                running[pool.submit(_train, _with_threads(run, jobs), log, on_output, runner)] = run
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                run, result = running.pop(future), future.result()
                if result is None:
                    time.sleep(RETRY_SECONDS)
                    waiting.append(run)
                else:
                    results[run.folder] = result
                    on_finish(run, result)
    finally:
        if running:  # interrupted: each training ends with its finished epochs on disk
            runner.stop()
        pool.shutdown(wait=True, cancel_futures=True)
    return results


def _with_threads(run: TrainConfig, jobs: int) -> TrainConfig:
    return run if run.threads is not None or jobs == 1 else replace(run, threads=max(1, n_cores() // jobs))


def _train(run: TrainConfig, log: Path, on_output: OnOutput, runner: SubprocessRunner) -> JobResult | None:
    """Train one run; None if another process is still training it."""
    start = time.monotonic()
    try:
        error = runner.train(run, log, on_output)
    except RunBusy:
        return JobResult(run.folder, 0.0) if is_finished(run) else None
    except OSError as problem:
        error = f"it could not be started: {problem}"
    seconds = time.monotonic() - start
    if not error and not is_finished(run):
        error = f"it ended, but {run.folder} holds no finished run"
    return JobResult(run.folder, seconds, error)


class SubprocessRunner:
    """Runs `nucseg train` in a process for each training."""

    def __init__(self) -> None:
        self._running: set[subprocess.Popen[str]] = set()
        self._stopped = False
        self._lock = threading.Lock()

    def train(self, run: TrainConfig, log: Path, on_output: OnOutput) -> str:
        """Train and log to a file; return why it failed, empty if it did not. Called from several threads.

        Raises:
            RunBusy: another process is training in the run's folder.
        """
        lines: list[str] = []
        write = _log_writer(log)
        with tempfile.TemporaryDirectory(prefix="nucseg-") as folder:
            recipe = Path(folder) / "train.toml"
            recipe.write_text(to_toml(run, without=("run", "resume")), encoding="utf-8")
            command = [sys.executable, "-m", "nucseg_pipeline", "train", "--recipe", str(recipe)]
            process = self._start([*command, "--run", str(run.folder.absolute()), "--resume"])
            if process is None:
                return "it was interrupted before it started"
            with process:
                try:
                    for line in process.stdout or ():
                        lines.append(line.rstrip())
                        write(line)
                        on_output(run, line.rstrip())
                except BaseException:
                    process.send_signal(signal.SIGINT)
                    raise
                finally:
                    process.wait()
                    self._running.discard(process)
        error = _error(process.returncode, lines, log)
        if process.returncode == RunBusy.exit_status:
            raise RunBusy(error)
        return error

    def stop(self) -> None:
        """Interrupt what is running; finished epochs are kept."""
        with self._lock:
            self._stopped = True
            for process in self._running:
                process.send_signal(signal.SIGINT)

    def _start(self, command: Sequence[str]) -> subprocess.Popen[str] | None:
        """Start a process that `stop` can interrupt; None once `stop` was called."""
        # colours would hide what a line begins with
        coloured = ("FORCE_COLOR", "TTY_COMPATIBLE")
        environment = {name: value for name, value in os.environ.items() if name not in coloured}
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


def _log_writer(path: Path) -> Callable[[str], None]:
    """A function that appends lines to a new file; if the file cannot be written, the training goes on without it."""
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


def _error(status: int, lines: Sequence[str], log: Path) -> str:
    """Why a training failed, from the exit status and the output of its process; empty if it did not fail."""
    if status == 0:
        return ""
    if status < 0:
        name = str(-status)
        with contextlib.suppress(ValueError):
            name = signal.Signals(-status).name
        memory = ", which happens when memory runs out" if name == "SIGKILL" else ""
        return f"it was killed by {name}{memory}; its output is in {log}"
    errors = [position for position, line in enumerate(lines) if line.startswith("error:")]
    message = " ".join(lines[errors[-1] :]).removeprefix("error:").strip() if errors else f"exit status {status}"
    return f"{message} (all of its output is in {log})"
