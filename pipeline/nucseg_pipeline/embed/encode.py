"""Run the encoder over what a store has no embedding of: images as they are, or views of them.

Reading, encoding and writing overlap: while the encoder works on a batch, threads read the images of the next ones, and
one more thread writes the batch before. Memory holds READ_AHEAD batches to come, the one being encoded, and one being
written.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nucseg.data import Entry
from nucseg.encoders import Encoder, guard
from nucseg.encoders.base import MIN_BATCH
from nucseg_cache import BLOCK_ROWS, Store
from nucseg_cache.formats import LARGEST_HALF
from nucseg_pipeline.datasets.normalised import remember_unchanged
from nucseg_pipeline.embed.image_reader import Job, Reader, Shown, Unusable
from nucseg_pipeline.embed.view_target import Target
from nucseg_pipeline.progress import Progress

READ_AHEAD = 2
"""Batches whose images are read while another one is encoded."""


LOOK_AGAIN_S = 0.2
"""Between two looks at a block that another process owns."""


@dataclass(frozen=True)
class Duration:
    """How long the embeddings still to make will take, by the pace of the batch after the first, which warms up."""

    n_left: int
    seconds: float


@dataclass(frozen=True, eq=False)
class _Block:
    """A block of rows that this process owns, and what is missing in it."""

    jobs: Sequence[Job]
    owned: ExitStack
    """Closed once its last batch is written, by the thread that writes."""


@dataclass(frozen=True, eq=False)
class _Batch:
    """What is encoded at once, of one block."""

    jobs: Sequence[Job]
    block: _Block
    is_last: bool
    """Of its block."""


class Encoding:
    """One run over a store: one count and one pace for all that is encoded in it."""

    def __init__(
        self,
        encoder: Encoder,
        store: Store,
        wanted: Mapping[int, Entry],
        failures: dict[str, str],
        n_total: int,
        progress: Progress,
        tell: Callable[[Duration], None],
    ) -> None:
        """Nothing is encoded yet.

        Args:
            encoder: what encodes.
            store: opened for writing.
            wanted: row -> its entry in the data set.
            failures: id -> why its image could not be used; added to.
            n_total: embeddings to make, over all targets.
            progress: called with (done, total, what).
            tell: called once, when the pace is known.
        """
        self.n_encoded: Counter[str] = Counter()
        """Embeddings made so far, by the name of the view."""
        self._encoder, self._store, self._wanted, self._failures = encoder, store, wanted, failures
        self._total, self._done = n_total, 0
        self._progress, self._tell = progress, tell
        self._n_planned = self._n_written = 0
        self._written_at = 0.0

    def run(self, targets: Sequence[Target], missing: Sequence[Sequence[int]]) -> None:
        """Encode the missing rows of some targets of one key, block by block, and each image once for all of them.

        Blocks that another process owns are left to it at first. At the end they are waited for, and looked at again:
        that process may have died.
        """
        n_missing = Counter(row // BLOCK_ROWS for rows in missing for row in rows)
        if not n_missing:
            return
        blocks = [block for block in targets[0].embeddings.blocks() if n_missing[block.start // BLOCK_ROWS]]
        for block in self._run(targets, blocks, n_missing):
            # each by itself: who waits for one while holding others may wait for one who waits for those
            self._progress(self._done, self._total, "waiting for another process that embeds into this store")
            while self._run(targets, [block], n_missing):
                time.sleep(LOOK_AGAIN_S)

    def _run(self, targets: Sequence[Target], blocks: Sequence[range], n_missing: Mapping[int, int]) -> list[range]:
        """Encode what is missing in the blocks that can be had; returns the others."""
        left: list[range] = []
        held: list[ExitStack] = []
        with ThreadPoolExecutor(1, "store") as store_thread:

            def batches() -> Iterator[_Batch]:
                for number in blocks:
                    block = store_thread.submit(_claimed, targets, number, held).result()
                    if block is None:
                        left.append(number)
                        continue
                    self._done += n_missing[number.start // BLOCK_ROWS] - len(block.jobs)  # done by another meanwhile
                    yield from self._batches(block)

            try:
                with Reader(self._store, self._wanted, self._encoder.resize) as reader:
                    self._encode(_read_ahead(reader, batches()), store_thread)
            finally:
                store_thread.submit(_release, held).result()
        return left

    def _encode(
        self, batches: Iterator[tuple[_Batch, list[Shown | Unusable]]], store_thread: ThreadPoolExecutor
    ) -> None:
        writing: tuple[int, Future[None]] | None = None
        self._written_at = time.perf_counter()
        for batch, read in batches:
            shown = [one for one in read if isinstance(one, Shown)]
            self._failures |= {one.id: one.reason for one in read if isinstance(one, Unusable)}
            values = self._encoder.run([one.image for one in shown]) if shown else None
            self._await(writing)
            writing = len(batch.jobs), store_thread.submit(self._write, batch, shown, values)
        self._await(writing)

    def _await(self, writing: tuple[int, Future[None]] | None) -> None:
        """Wait until the batch before is written, and count it."""
        if writing is None:
            return
        n_jobs, written = writing
        written.result()
        now = time.perf_counter()
        seconds, self._written_at = now - self._written_at, now
        self._n_written += 1
        self._done += n_jobs
        self._progress(self._done, self._total, "encoding")
        n_left = self._total - self._done
        if self._n_written == 2 and n_left > 0:
            self._tell(Duration(n_left, n_left * seconds / n_jobs))

    def _batches(self, block: _Block) -> Iterator[_Batch]:
        """Batches of the encoder's size; the very first is the least there is, because it only warms up."""
        first = 0
        while first < len(block.jobs):
            last = first + (max(self._encoder.batch_size, MIN_BATCH) if self._n_planned else MIN_BATCH)
            self._n_planned += 1
            yield _Batch(block.jobs[first:last], block, is_last=last >= len(block.jobs))
            first = last

    def _write(self, batch: _Batch, shown: Sequence[Shown], values: NDArray[np.float32] | None) -> None:
        """Store one batch, once the guard has let it pass."""
        if values is not None:
            guard([one.image for one in shown], values)
            # first, so that a kill loses none
            remember_unchanged(self._store, [self._wanted[row] for row in dict.fromkeys(one.job.row for one in shown)])
            for target in dict.fromkeys(one.job.target for one in shown):
                mine = [i for i, one in enumerate(shown) if one.job.target is target]
                prepared = [image for i in mine if (image := shown[i].prepared) is not None]
                rows = [shown[i].job.row for i in mine]
                stored = rounded(values[mine], target.embeddings.key.fields["format"])
                target.embeddings.write(rows, stored, np.stack(prepared) if prepared else None)
                self.n_encoded[target.name] += len(mine)
        if batch.is_last:
            batch.block.owned.close()


def rounded(values: NDArray[np.float32], storage: str) -> NDArray[np.floating]:
    """The values in the type that a format stores, where torch rounds to it as numpy does, twenty times faster.

    Values that half precision cannot hold are left for the store to refuse.
    """
    if storage != "f16" or max(values.max(), -values.min()) > LARGEST_HALF:
        return values
    import torch  # an ONNX encoder runs without it: imported beside the first batch, not before

    half: NDArray[np.floating] = torch.from_numpy(values).half().numpy()
    return half


def _claimed(targets: Sequence[Target], number: range, held: list[ExitStack]) -> _Block | None:
    """The block of these rows with what is missing in it, owned in all views of its key; None if another owns it."""
    owned = ExitStack()
    if not owned.enter_context(targets[0].embeddings.claim(number)):
        return None
    held.append(owned)
    jobs = [Job(row, target) for target in targets for row in target.missing(number)]
    jobs.sort(key=lambda job: job.row)  # all views of an image in turn: it is read once
    if not jobs:
        owned.close()
    return _Block(jobs, owned)


def _release(held: Sequence[ExitStack]) -> None:
    """Let go of all blocks; those that were finished are free already."""
    for owned in held:
        owned.close()


def _read_ahead(reader: Reader, batches: Iterator[_Batch]) -> Iterator[tuple[_Batch, list[Shown | Unusable]]]:
    """Each batch with its images; those of the next ones are being read meanwhile."""
    coming: deque[tuple[_Batch, list[Future[Shown | Unusable]]]] = deque()
    for batch in batches:
        coming.append((batch, [reader.begin(job) for job in batch.jobs]))
        if len(coming) > READ_AHEAD:
            yield _read(*coming.popleft())
    while coming:
        yield _read(*coming.popleft())


def _read(batch: _Batch, coming: Sequence[Future[Shown | Unusable]]) -> tuple[_Batch, list[Shown | Unusable]]:
    return batch, [one.result() for one in coming]
