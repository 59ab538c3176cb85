"""Dask clusters: processes on this machine, which no other machine can reach, or an existing cluster.

Dask is imported when a cluster is opened. Workers that are started here run one task at a time: each is a process with
one encoder and, on a machine with GPUs, one GPU.
"""

from __future__ import annotations

import logging
import os
import signal
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
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
"""Time that a scheduler has to answer."""

START_S = 120
"""Time that processes on this machine have to start; they import torch and open the encoder later."""

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class ClusterError(NucsegError):
    """A cluster cannot be reached, or its workers cannot encode."""


@contextmanager
def local_cluster(config: EmbedConfig) -> Iterator[Client]:
    """Start `config.workers` processes on this machine; they end with the `with` block, or with this process.

    They communicate with this process only: through the loopback interface, encrypted, with a certificate that no
    other user of the machine has.

    Raises:
        ConfigError: there are fewer GPUs than workers.
        ClusterError: the processes do not start.
    """
    environments = worker_environments(config)
    from distributed import Client, LocalCluster, Security

    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="nucseg-workers-"))
        stack.enter_context(_without_dask_logs())
        try:
            cluster = stack.enter_context(
                LocalCluster(
                    n_workers=len(environments), threads_per_worker=1, processes=True, memory_limit=0,
                    worker_class=partial(_nanny, environments), local_directory=folder, host=LOOPBACK,
                    security=Security.temporary(), dashboard_address=f"{LOOPBACK}:0",
                    worker_dashboard_address=f"{LOOPBACK}:0", scheduler_kwargs={"dashboard": False},
                    silence_logs=logging.CRITICAL,
                )
            )  # fmt: skip
            client = stack.enter_context(Client(cluster, timeout=START_S))
            client.wait_for_workers(len(environments), timeout=START_S)
        except (OSError, RuntimeError) as error:  # what Dask raises for processes that do not start
            raise ClusterError(
                f"the {len(environments)} worker processes did not start: {error}. Start fewer (--workers), or none. A "
                "script that calls `embed` must do so under `if __name__ == '__main__':`."
            ) from error
        yield client


def worker_environments(config: EmbedConfig) -> list[dict[str, str]]:
    """The environment variables of each process on this machine: its GPU, or its share of the cores.

    Raises ConfigError if there are fewer GPUs than workers, or if one GPU is named for all of them.
    """
    n_workers = config.workers or 1
    threads = str(threads_per_worker(config))
    common = dict.fromkeys(THREAD_VARIABLES, threads)
    if config.device in ("cpu", "mps"):
        return [common] * n_workers
    if ":" in config.device:
        raise ConfigError(
            f"{n_workers} workers need a GPU each, but --device {config.device} is one GPU. Use --device cuda, and "
            "choose the GPUs with CUDA_VISIBLE_DEVICES."
        )
    gpus = visible_gpus()
    if not gpus and config.device == "auto":
        return [common] * n_workers
    if len(gpus) < n_workers:
        raise ConfigError(
            f"{n_workers} workers need a GPU each, but torch sees {len(gpus)}. Use --workers {max(len(gpus), 1)}, or "
            "--device cpu."
        )
    return [{**common, "CUDA_VISIBLE_DEVICES": gpu} for gpu in gpus[:n_workers]]


def threads_per_worker(config: EmbedConfig) -> int:
    """`config.threads`, or an equal share of the cores that this process may use."""
    return config.threads or max(1, _n_cores() // (config.workers or 1))


def _n_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def visible_gpus() -> list[str]:
    """The GPUs that torch sees, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    named = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return (named or [str(i) for i in range(torch.cuda.device_count())])[: torch.cuda.device_count()]


@contextmanager
def existing_cluster(address: str) -> Iterator[Client]:
    """Connect to a running scheduler, by its address or its scheduler file.

    Raises:
        ClusterError: no scheduler answers.
    """
    from distributed import Client

    is_file = "://" not in address and home_expanded(address).suffix == ".json"
    target: dict[str, Any] = {"scheduler_file": str(home_expanded(address))} if is_file else {"address": address}
    if is_file and not home_expanded(address).is_file():
        raise ClusterError(
            f"there is no scheduler file {address}. `dask scheduler --scheduler-file FILE` writes one; put it into a "
            "folder that all machines share."
        )
    with _without_dask_logs():
        try:
            client = Client(**target, timeout=CONNECT_S, set_as_default=False)
        except (OSError, ValueError, TypeError, ImportError) as error:
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise ClusterError(
                f"no scheduler answers at {address} ({reason}). Start one with `dask scheduler`, and use "
                "the address that it prints, tcp://HOST:PORT, or its scheduler file; tls:// also needs certificates in "
                "Dask's configuration (distributed.comm.tls)."
            ) from error
        with client:
            yield client


def local_version() -> str:
    """The version of nucseg that runs here."""
    return version("nucseg")


def check_versions(client: Client, workers: Sequence[str]) -> None:
    """Raise ClusterError, naming the workers, unless all have the version of nucseg that runs here."""
    expected = local_version()
    # a function of the standard library, because a worker without nucseg could not unpickle one of nucseg
    futures = {worker: client.submit(version, "nucseg", workers=[worker], pure=False) for worker in workers}
    wrong = []
    for worker, future in futures.items():
        try:
            found = future.result()
        except PackageNotFoundError:
            found = "none"
        if found != expected:
            wrong.append(f"{worker}: {found}")
    if wrong:
        raise ClusterError(
            f"the workers must have nucseg {expected}, as this machine has, but some have another version:\n  "
            + "\n  ".join(wrong)
            + "\nInstall it there, from the same source and constraints, and start them again."
        )


@contextmanager
def _without_dask_logs() -> Iterator[None]:
    """Silence what Dask logs about workers that come and go; what the user must know is in our errors."""
    # each logger, because Dask sets the levels of some of them
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


def _nanny(environments: Sequence[dict[str, str]], *args: Any, name: int, **options: Any) -> Any:
    """A worker that is restarted if it dies. Dask does not limit its memory; the encoder adapts its batches to it.

    Its process ignores Ctrl-C, which a terminal sends to it too; this process ends it. Dask calls this in the thread of
    its event loop, and processes started by that thread inherit its blocked signals.
    """
    from distributed import Nanny

    resource_tracker.ensure_running()  # first, because starting it unblocks Ctrl-C
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    return Nanny(*args, name=name, env=environments[name], **{**options, "dashboard": False})
