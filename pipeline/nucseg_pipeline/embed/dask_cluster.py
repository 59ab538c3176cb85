"""Dask clusters: processes on this machine, reachable from nowhere else, or the user's own cluster.

Dask is loaded by whoever opens one. Workers that we start take one task at a time, so a worker is a process with one
encoder, and on a machine with GPUs a GPU.
"""

from __future__ import annotations

import logging
import os
import signal
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib.metadata import PackageNotFoundError, version
from multiprocessing import resource_tracker
from typing import TYPE_CHECKING, Any

from nucseg.errors import ConfigError, NucsegError
from nucseg.paths import home_expanded

if TYPE_CHECKING:
    from distributed import Client

    from nucseg_pipeline.config import EmbedConfig

LOOPBACK = "127.0.0.1"

CONNECT_S = 20
"""Until an address that does not answer is given up."""

START_S = 120
"""Until processes on this machine, which load torch and the encoder later, must have come up."""

THREADS_OF = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class ClusterError(NucsegError):
    """A cluster cannot be reached, or its workers cannot do the work."""


@contextmanager
def local_cluster(config: EmbedConfig) -> Iterator[Client]:
    """Start `config.workers` processes on this machine; they end with the block, or with this process.

    They speak with this process alone: through the loopback interface, encrypted, with a certificate that nobody else
    on the machine has.

    Raises:
        ConfigError: there is not a GPU for each.
        ClusterError: they do not come up.
    """
    environments = worker_environments(config)
    from distributed import Client, Security, SpecCluster

    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="nucseg-workers-"))
        stack.enter_context(_quiet())
        security = Security.temporary()
        try:
            cluster = stack.enter_context(
                SpecCluster(
                    workers={i: _nanny(env, security, folder) for i, env in enumerate(environments)},
                    scheduler=_scheduler(security),
                    security=security,
                    silence_logs=logging.CRITICAL,
                )
            )
            client = stack.enter_context(Client(cluster, timeout=START_S))
            client.wait_for_workers(len(environments), timeout=START_S)
        except (OSError, RuntimeError) as error:  # what dask makes of processes that do not start
            raise ClusterError(
                f"the {len(environments)} worker processes did not start: {error}. Start fewer (--workers), or none. A "
                "script that calls `embed` itself must do so under `if __name__ == '__main__':`."
            ) from error
        yield client


def worker_environments(config: EmbedConfig) -> list[dict[str, str]]:
    """The variables of each process on this machine: its GPU, or its share of the cores.

    Raises ConfigError where workers outnumber the GPUs, or all would take the same one.
    """
    n_workers = config.workers or 1
    threads = str(threads_per_worker(config))
    common = dict.fromkeys(THREADS_OF, threads)
    if config.device in ("cpu", "mps"):
        return [common] * n_workers
    if ":" in config.device:
        raise ConfigError(
            f"device {config.device} is one GPU, and {n_workers} workers have one each. Ask for cuda, and name "
            "the GPUs with CUDA_VISIBLE_DEVICES."
        )
    gpus = visible_gpus()
    if not gpus and config.device == "auto":
        return [common] * n_workers
    if len(gpus) < n_workers:
        raise ConfigError(
            f"{n_workers} workers want a GPU each, and torch sees {len(gpus)} here. Ask for --workers "
            f"{max(len(gpus), 1)}, or for --device cpu."
        )
    return [{**common, "CUDA_VISIBLE_DEVICES": gpu} for gpu in gpus[:n_workers]]


def threads_per_worker(config: EmbedConfig) -> int:
    """What was asked for, or a share of the cores that this process may use."""
    return config.threads or max(1, _n_cores() // (config.workers or 1))


def _n_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def visible_gpus() -> list[str]:
    """The GPUs that torch sees, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    named = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return (named or [str(i) for i in range(torch.cuda.device_count())])[: torch.cuda.device_count()]


@contextmanager
def users_cluster(address: str) -> Iterator[Client]:
    """Connect to the user's scheduler, by its address or its scheduler file.

    Raises:
        ClusterError: nothing answers there.
    """
    from distributed import Client

    is_file = "://" not in address and home_expanded(address).suffix == ".json"
    where: dict[str, Any] = {"scheduler_file": str(home_expanded(address))} if is_file else {"address": address}
    if is_file and not home_expanded(address).is_file():
        raise ClusterError(
            f"there is no scheduler file {address}. `dask scheduler --scheduler-file FILE` writes it; take a "
            "folder that all machines share."
        )
    with _quiet():
        try:
            client = Client(**where, timeout=CONNECT_S, set_as_default=False)
        except (OSError, ValueError, TypeError, ImportError) as error:
            raise ClusterError(
                f"no scheduler answers at {address} ({_first_line(error)}). Start one with `dask scheduler`, and give "
                "the address that it prints, tcp://HOST:PORT, or its scheduler file; tls:// wants certificates too, in "
                "Dask's configuration (distributed.comm.tls)."
            ) from error
        with client:
            yield client


def our_version() -> str:
    """The version of nucseg that runs here."""
    return version("nucseg")


def refuse_other_versions(client: Client, workers: Sequence[str]) -> None:
    """Raise ClusterError unless every worker has the nucseg that runs here, by name."""
    ours = our_version()
    # a function of the standard library: one of ours could not even be sent to a worker that has no nucseg
    asked = {w: client.submit(version, "nucseg", workers=[w], pure=False) for w in workers}
    wrong = []
    for worker, future in asked.items():
        try:
            found = future.result()
        except PackageNotFoundError:
            found = "none"
        if found != ours:
            wrong.append(f"{worker}: {found}")
    if wrong:
        raise ClusterError(
            f"the workers must have nucseg {ours}, as here; found are\n  " + "\n  ".join(wrong) + "\nInstall it where "
            "they run, from the same source and constraints, and start them again."
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """What Dask logs of workers that come and go is not for the user; what they have to know is told by us."""
    # one by one: Dask gives some of its loggers a level of their own
    names = [name for name in logging.root.manager.loggerDict if name.startswith(("distributed", "tornado"))]
    loggers = [logging.getLogger(name) for name in names]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


def _scheduler(security: Any) -> dict[str, Any]:
    from distributed import Scheduler

    return {
        "cls": Scheduler,
        "options": {
            "host": LOOPBACK, "port": 0, "protocol": "tls://", "security": security, "dashboard": False,
            "dashboard_address": f"{LOOPBACK}:0",
        },
    }  # fmt: skip


def _nanny(environment: dict[str, str], security: Any, folder: str) -> dict[str, Any]:
    """A worker whose process is started again where it dies; Dask does not bound its memory, encoding does."""
    return {
        "cls": _deaf_nanny,
        "options": {
            "host": LOOPBACK, "protocol": "tls://", "security": security, "dashboard": False,
            "dashboard_address": f"{LOOPBACK}:0", "nthreads": 1, "memory_limit": 0, "env": environment,
            "local_directory": folder, "silence_logs": logging.CRITICAL,
        },
    }  # fmt: skip


def _deaf_nanny(*args: Any, **options: Any) -> Any:
    """A nanny whose processes do not hear Ctrl-C, which a terminal sends to them too: ending them is our business.

    Dask calls this in the thread of its event loop, and processes that this thread starts inherit what it has blocked.
    """
    from distributed import Nanny

    resource_tracker.ensure_running()  # first: whoever starts it hears Ctrl-C again afterwards
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    return Nanny(*args, **options)


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
