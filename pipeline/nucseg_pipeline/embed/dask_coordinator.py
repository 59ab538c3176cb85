"""The coordinator's side: send blocks of rows to Dask workers, count what they have done, and report errors.

No image or embedding passes through this process: workers own the blocks and write them. Dask sends the task of a lost
worker to another one, which computes what is still missing.
"""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import groupby
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from nucseg.encoders import asked_identity
from nucseg.errors import NucsegError
from nucseg_cache import BLOCK_ROWS, CacheError, Key
from nucseg_pipeline.embed.dask_cluster import (
    ClusterError,
    check_versions,
    existing_cluster,
    local_cluster,
    threads_per_worker,
)
from nucseg_pipeline.embed.dask_worker import (
    BlockResult,
    EncodeJob,
    RowBlock,
    ViewRows,
    WorkerEncoder,
    check_same_encoder,
    encode_block,
    open_worker,
)
from nucseg_pipeline.embed.estimate import OnEstimate, TimeEstimate
from nucseg_pipeline.embed.view_target import ViewTarget
from nucseg_pipeline.progress import Progress

if TYPE_CHECKING:
    from distributed import Client, Future

    from nucseg_pipeline.config import EmbedConfig

SHARED_PATHS = (
    "Cache, source folder and weights must have the same path on every machine of the cluster; the cache may also be a "
    "URL."
)

WAIT_S = 2.0
"""Time between two checks for a first worker of an existing cluster."""


class TaskCancelled(Exception):
    """The run was stopped and nobody waits for the task; it must release its block for the next run."""


class DaskBackend:
    """The workers of one run."""

    def __init__(self, client: Client, job: EncodeJob, progress: Progress) -> None:
        """Let every worker open store, data set and encoder.

        Raises:
            ClusterError: some workers have another version of nucseg, or cannot open what this process can.
            EncoderError: their encoders differ.
        """
        self._client, self._job, self._progress = client, job, progress
        # the weights as this process sees them
        asked = asked_identity(job.config.encoder, weights=job.config.weights, precision=job.config.precision)
        workers = _workers(client, progress)
        check_versions(client, workers)
        encoders = _open_all(client, job, workers, progress)
        first = encoders[workers[0]]
        for worker, encoder in encoders.items():
            check_same_encoder({**first.identity, **asked}, encoder.identity, worker)
        self.identity, self.provenance, self.note = first.identity, first.provenance, first.note
        self._n_workers = len(workers)

    def encode(
        self,
        key: Key,
        targets: Sequence[ViewTarget],
        missing: Sequence[Sequence[int]],
        failures: dict[str, str],
        on_estimate: OnEstimate,
    ) -> Counter[str]:
        """See `LocalBackend.encode`. An error of one worker stops the others too."""
        for target, rows in zip(targets, missing, strict=True):
            if rows:
                target.embeddings.ensure_arrays()
        counter = _ProgressCounter(_blocks(targets, missing), self._n_workers, self._progress, on_estimate)
        n_encoded: Counter[str] = Counter()
        for number, (n_encoded_here, failed) in self._results(key, counter):
            n_encoded.update(n_encoded_here)
            failures |= failed
            counter.finish(number)
        return n_encoded

    def _results(self, key: Key, counter: _ProgressCounter) -> Iterator[tuple[int, BlockResult]]:
        """The number and result of each block as it is finished; meanwhile the counter gets the workers' progress."""
        events: SimpleQueue[tuple[int, Any]] = SimpleQueue()
        topic = f"nucseg-{self._job.run}"
        self._client.subscribe_topic(topic, lambda event: events.put((event[1]["number"], event[1])))
        futures = [
            self._client.submit(
                _encode, self._job, key, block, number, topic,
                key=f"{topic}-{number}", priority=-number, pure=False,
            )
            for number, block in enumerate(counter.blocks)
        ]  # fmt: skip
        try:
            for number, future in enumerate(futures):
                future.add_done_callback(lambda done, number=number: events.put((number, done)))
            n_left = len(futures)
            while n_left:
                number, event = events.get()
                if isinstance(event, Mapping):
                    counter.update(number, event["done"], event["what"])
                    continue
                n_left -= 1
                yield number, block_result(event, counter.blocks[number])
        finally:
            with suppress(Exception):  # the connection may be what failed
                self._client.unsubscribe_topic(topic)
                self._client.cancel(futures, force=True)


@contextmanager
def dask_backend(config: EmbedConfig, location: str, source: str, progress: Progress) -> Iterator[DaskBackend]:
    """The workers that a configuration asks for, until the block is left."""
    job = EncodeJob.of(uuid.uuid4().hex, config, location, source)
    if config.scheduler is not None:
        progress(0, 1, "connecting to the scheduler")
        with existing_cluster(config.scheduler) as client:
            yield DaskBackend(client, job, progress)
    else:
        progress(0, config.workers or 1, "starting workers")
        with local_cluster(config) as client:
            yield DaskBackend(client, job.with_threads(threads_per_worker(config)), progress)


class _ProgressCounter:
    """Counts the embeddings of all blocks, and estimates the time from the speed."""

    def __init__(self, blocks: Sequence[RowBlock], n_workers: int, progress: Progress, on_estimate: OnEstimate) -> None:
        self.blocks = blocks
        self._n_workers, self._progress, self._on_estimate = n_workers, progress, on_estimate
        self._done = [0] * len(blocks)
        self._total = sum(block.n_embeddings for block in blocks)
        self._first: tuple[int, float] | None = None
        self._estimated = False

    def finish(self, number: int) -> None:
        """Count a block as finished, also if some of its images could not be used."""
        self.update(number, self.blocks[number].n_embeddings, "encoding")

    def update(self, number: int, done: int, what: str) -> None:
        """Set how many embeddings a block has; a block that another worker continues never counts less."""
        before = sum(self._done)
        self._done[number] = max(self._done[number], done)
        n_done = sum(self._done)
        if n_done > before or what != "encoding":
            self._progress(n_done, self._total, what)
        self._estimate(n_done, self._total - n_done)

    def _estimate(self, n_done: int, n_left: int) -> None:
        now = time.monotonic()
        if self._first is None:
            self._first = n_done, now
        n_before, began = self._first
        if not self._estimated and n_done - n_before >= 2 * self._n_workers and n_left:
            self._estimated = True
            self._on_estimate(TimeEstimate(n_left, n_left * (now - began) / (n_done - n_before)))


def _blocks(targets: Sequence[ViewTarget], missing: Sequence[Sequence[int]]) -> list[RowBlock]:
    """The tasks: all blocks of the unchanged images, then those of the views, each with all views of its images."""
    by_target = [_by_block(rows) for rows in missing]
    blocks = []
    for indices in (range(1), range(1, len(targets))):
        for first in sorted({first for i in indices for first in by_target[i]}):
            views = tuple(ViewRows(targets[i].view, by_target[i][first]) for i in indices if first in by_target[i])
            blocks.append(RowBlock(range(first, first + BLOCK_ROWS), views))
    return blocks


def _by_block(rows: Sequence[int]) -> dict[int, frozenset[int]]:
    """The first row of each block -> the given rows in it."""
    return {first: frozenset(inside) for first, inside in groupby(sorted(rows), lambda row: row - row % BLOCK_ROWS)}


def _encode(job: EncodeJob, key: Key, block: RowBlock, number: int, topic: str) -> BlockResult:
    """The task, on a worker."""
    from distributed import get_worker

    worker = get_worker()
    task = worker.get_current_task()

    def report(done: int, what: str) -> None:
        state = worker.state.tasks.get(task)
        if state is None or state.state == "cancelled":
            raise TaskCancelled
        worker.log_event(topic, {"number": number, "done": done, "what": what})

    return encode_block(job, key, block, report)


def _workers(client: Client, progress: Progress) -> list[str]:
    """The addresses of all workers; waits for the first one."""
    while not (found := list(client.scheduler_info(n_workers=-1)["workers"])):
        progress(0, 1, "waiting for a first worker of the cluster")
        with suppress(TimeoutError):
            client.wait_for_workers(1, timeout=WAIT_S)
    return found


def _open_all(client: Client, job: EncodeJob, workers: Sequence[str], progress: Progress) -> dict[str, WorkerEncoder]:
    futures = {worker: client.submit(open_worker, job, workers=[worker], pure=False) for worker in workers}
    encoders: dict[str, WorkerEncoder] = {}
    errors: dict[str, NucsegError | CacheError] = {}
    for worker, future in futures.items():
        try:
            encoders[worker] = future.result()
        except (NucsegError, CacheError) as error:
            errors[worker] = error
        else:
            progress(len(encoders), len(workers), "opening the encoder on the workers")
    if errors:
        raise_worker_errors(errors, len(workers), local=job.config.scheduler is None)
    return encoders


def raise_worker_errors(errors: Mapping[str, NucsegError | CacheError], n_workers: int, *, local: bool) -> None:
    """Raise why workers could not open what they need.

    Args:
        errors: address of a worker -> its error.
        n_workers: of the cluster.
        local: whether they are processes on this machine, all with the same error.

    Raises:
        NucsegError, CacheError: the first error, if all workers have one.
        ClusterError: only some workers have one; the message lists them.
    """
    worker, first = next(iter(errors.items()))
    if local:
        raise first
    if len(errors) == n_workers:
        raise type(first)(f"{first}\nReported by the worker {worker}. {SHARED_PATHS}")
    lines = "".join(f"\n  {address}: {error}" for address, error in errors.items())
    raise ClusterError(f"{len(errors)} of {n_workers} workers cannot start:{lines}\n{SHARED_PATHS}")


def block_result(future: Future, block: RowBlock) -> BlockResult:
    """The result of a task that has ended.

    Raises:
        NucsegError, CacheError: the error of the worker.
        ClusterError: the worker died, or the connection was lost.
    """
    from distributed import KilledWorker

    if future.status == "error":
        error = future.exception()
        if isinstance(error, KilledWorker):
            raise ClusterError(
                f"the worker that encoded rows {block.rows.start} to {block.rows.stop - 1} died, and so did those that "
                "took them over, most likely because they ran out of memory. Start fewer workers, or give each more "
                "memory. Finished work is kept; the same command continues from there."
            )
        raise error
    if future.status != "finished":
        raise ClusterError(
            "the connection to the scheduler was lost. Finished work is kept. Start the scheduler again; the "
            "same command continues from there."
        )
    result: BlockResult = future.result()
    return result
