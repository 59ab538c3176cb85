"""Encode with several processes: this one keeps the count, tasks on workers own the blocks and write them.

Nothing of an image or an embedding passes through this process. A task that is lost with its worker is sent again by
Dask, and computes what is still missing.
"""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from nucseg.encoders import asked_identity
from nucseg_cache import BLOCK_ROWS, Key
from nucseg_pipeline.embed.dask_cluster import (
    ClusterError,
    local_cluster,
    refuse_other_versions,
    threads_per_worker,
    users_cluster,
)
from nucseg_pipeline.embed.dask_worker import (
    Block,
    Done,
    Failed,
    Opened,
    Part,
    Work,
    encode_block,
    open_tools,
    refuse_another_encoder,
)
from nucseg_pipeline.embed.encode import Duration
from nucseg_pipeline.embed.view_target import Target
from nucseg_pipeline.progress import Progress

if TYPE_CHECKING:
    from distributed import Client, Future

    from nucseg_pipeline.config import EmbedConfig

SHARED = (
    "Cache, source folder and weights must be there under the same path on every machine of the cluster; a cache may "
    "also be a URL."
)

WAIT_S = 2.0
"""Between two looks for a first worker of the user's cluster."""


class Abandoned(Exception):
    """Nobody waits for a task any more: its run was stopped, and the block must be free for the next one."""


class DaskBackend:
    """The workers of one run, ready to encode."""

    def __init__(self, client: Client, work: Work, progress: Progress) -> None:
        """Have every worker that is there open store, data set and encoder.

        Raises:
            ClusterError: some workers have another nucseg, or cannot see what this process sees.
            EncoderError: their encoders are not the same.
        """
        self._client, self._work, self._progress = client, work, progress
        # the weights as this process sees them
        asked = asked_identity(work.config.encoder, weights=work.config.weights, precision=work.config.precision)
        workers = _workers(client, progress)
        refuse_other_versions(client, workers)
        opened = _opened_by_all(client, work, workers, progress)
        first = opened[workers[0]]
        for worker, other in opened.items():
            refuse_another_encoder({**first.identity, **asked}, other.identity, worker)
        self.identity, self.provenance, self.note = first.identity, first.provenance, first.note
        self._n_workers = len(workers)

    def encode(
        self,
        key: Key,
        targets: Sequence[Target],
        missing: Sequence[Sequence[int]],
        failures: dict[str, str],
        tell: Callable[[Duration], None],
    ) -> Counter[str]:
        """Encode the missing rows of the targets of a key: the images as they are, and after them the views.

        Args:
            key: of the embeddings.
            targets: the images as they are first.
            missing: the missing rows of each.
            failures: id -> why its image could not be used; added to.
            tell: called once, when the pace is known.

        Returns:
            Embeddings made, by the name of the view.

        Raises:
            NucsegError, CacheError: what stopped a worker; the others are stopped too, and all that is written is kept.
        """
        for target, rows in zip(targets, missing, strict=True):
            if rows:
                target.embeddings.ensure_arrays()
        count = _Count(_blocks(targets, missing), self._n_workers, self._progress, tell)
        n_encoded: Counter[str] = Counter()
        for block, done in self._done(key, count):
            n_encoded.update(done.n_encoded)
            failures |= done.failures
            count.note(block, None, "encoding")
        return n_encoded

    def _done(self, key: Key, count: _Count) -> Iterator[tuple[int, Done]]:
        """Each block as it is finished; what is told of the others goes to the count meanwhile."""
        told: SimpleQueue[tuple[int, Any]] = SimpleQueue()
        topic = f"nucseg-{self._work.run}"
        self._client.subscribe_topic(topic, lambda event: told.put((event[1]["number"], event[1])))
        futures = [
            self._client.submit(
                _encode, self._work, key, block, number, topic,
                key=f"{topic}-{number}", priority=-number, pure=False,
            )
            for number, block in enumerate(count.blocks)
        ]  # fmt: skip
        try:
            for number, future in enumerate(futures):
                future.add_done_callback(lambda done, number=number: told.put((number, done)))
            left = len(futures)
            while left:
                number, what = told.get()
                if isinstance(what, Mapping):
                    count.note(number, what["done"], what["what"])
                    continue
                left -= 1
                yield number, _result(what, count.blocks[number])
        finally:
            with suppress(Exception):  # the connection may be what failed
                self._client.unsubscribe_topic(topic)
                self._client.cancel(futures, force=True)


@contextmanager
def dask_backend(config: EmbedConfig, location: str, source: str, progress: Progress) -> Iterator[DaskBackend]:
    """The workers that a configuration asks for, until the block is left."""
    work = Work.of(uuid.uuid4().hex, config, location, source)
    if config.scheduler is not None:
        progress(0, 1, "connecting to the scheduler")
        with users_cluster(config.scheduler) as client:
            yield DaskBackend(client, work, progress)
    else:
        progress(0, config.workers or 1, "starting workers")
        with local_cluster(config) as client:
            yield DaskBackend(client, work.with_threads(threads_per_worker(config)), progress)


class _Count:
    """How many embeddings there are by now, over all blocks, and the pace."""

    def __init__(
        self, blocks: Sequence[Block], n_workers: int, progress: Progress, tell: Callable[[Duration], None]
    ) -> None:
        self.blocks = blocks
        self._n_workers, self._progress, self._tell = n_workers, progress, tell
        self._planned = [sum(len(part.rows) for part in block.parts) for block in blocks]
        self._done = [0] * len(blocks)
        self._first: tuple[int, float] | None = None
        self._told = False

    def note(self, number: int, done: int | None, what: str) -> None:
        """A block has so many embeddings now; None where it is finished. One that is done again counts no less."""
        before = sum(self._done)
        self._done[number] = max(self._done[number], self._planned[number] if done is None else done)
        n_done, total = sum(self._done), sum(self._planned)
        if n_done > before or what != "encoding":
            self._progress(n_done, total, what)
        self._foretell(n_done, total - n_done)

    def _foretell(self, n_done: int, n_left: int) -> None:
        now = time.monotonic()
        if self._first is None:
            self._first = n_done, now
        n_before, began = self._first
        if not self._told and n_done - n_before >= 2 * self._n_workers and n_left:
            self._told = True
            self._tell(Duration(n_left, n_left * (now - began) / (n_done - n_before)))


def _blocks(targets: Sequence[Target], missing: Sequence[Sequence[int]]) -> list[Block]:
    """The tasks: all blocks of the images as they are, and then those of the views, each image in all of them."""
    by_target = [_by_block(rows) for rows in missing]
    blocks = []
    for stage in (range(1), range(1, len(targets))):
        for first in sorted({first for i in stage for first in by_target[i]}):
            parts = tuple(Part(targets[i].view, by_target[i][first]) for i in stage if first in by_target[i])
            blocks.append(Block(range(first, first + BLOCK_ROWS), parts))
    return blocks


def _by_block(rows: Sequence[int]) -> dict[int, frozenset[int]]:
    """The first row of each block -> those of the rows that lie in it."""
    found: dict[int, set[int]] = {}
    for row in rows:
        found.setdefault(row - row % BLOCK_ROWS, set()).add(row)
    return {first: frozenset(inside) for first, inside in found.items()}


def _encode(work: Work, key: Key, block: Block, number: int, topic: str) -> Done | Failed:
    """The task, on a worker."""
    from distributed import get_worker

    worker = get_worker()

    task = worker.get_current_task()

    def told(block: Block, done: int, what: str) -> None:
        state = worker.state.tasks.get(task)
        if state is None or state.state == "cancelled":
            raise Abandoned
        worker.log_event(topic, {"number": number, "done": done, "what": what})

    return encode_block(work, key, block, told)


def _workers(client: Client, progress: Progress) -> list[str]:
    """The addresses of all workers, once there is one."""
    while not (found := list(client.scheduler_info(n_workers=-1)["workers"])):
        progress(0, 1, "waiting for a first worker of the cluster")
        with suppress(TimeoutError):
            client.wait_for_workers(1, timeout=WAIT_S)
    return found


def _opened_by_all(client: Client, work: Work, workers: Sequence[str], progress: Progress) -> dict[str, Opened]:
    asked = {worker: client.submit(open_tools, work, workers=[worker], pure=False) for worker in workers}
    opened: dict[str, Opened] = {}
    failed: dict[str, Failed] = {}
    for worker, future in asked.items():
        result = future.result()
        if isinstance(result, Failed):
            failed[worker] = result
        else:
            opened[worker] = result
            progress(len(opened), len(workers), "opening the encoder on the workers")
    if failed:
        _raise(failed, len(workers), local=work.config.scheduler is None)
    return opened


def _raise(failed: Mapping[str, Failed], n_workers: int, *, local: bool) -> None:
    """What keeps workers from the work: what all of them say, or who says what."""
    worker, one = next(iter(failed.items()))
    if local:
        raise one.error()
    if len(failed) == n_workers:
        raise replace(one, message=f"{one.message}\nSo says the worker {worker}. {SHARED}").error()
    said = "".join(f"\n  {worker}: {one.message}" for worker, one in failed.items())
    raise ClusterError(f"{len(failed)} of {n_workers} workers cannot do the work:{said}\n{SHARED}")


def _result(future: Future, block: Block) -> Done:
    from distributed import KilledWorker

    if future.status == "error":
        error = future.exception()
        if isinstance(error, KilledWorker):
            raise ClusterError(
                f"the worker of rows {block.rows.start} to {block.rows.stop - 1} died, and so did those that took them "
                "over. The most likely reason is memory: start fewer workers, or give each more. What was finished is "
                "kept, and the same command goes on from there."
            )
        raise error
    if future.status != "finished":
        raise ClusterError(
            "the connection to the scheduler was lost. What was finished is kept, and the same command goes on from "
            "there; start the scheduler again first."
        )
    result: Done | Failed = future.result()
    if isinstance(result, Failed):
        raise result.error()
    return result
