"""Run the encoder over what a store has no embedding of: images as they are, or views of them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nucseg.data import Entry, prepare_image
from nucseg.encoders import Encoder
from nucseg.errors import DataError
from nucseg.views import View
from nucseg_cache import BLOCK_ROWS, Embeddings, Store
from nucseg_pipeline.stained import remember_unchanged
from nucseg_pipeline.synchronise import Progress

SIDE_PX = 256
"""Side of a prepared sample in pixels."""

LEAST_BATCH = 2
"""Images given to the encoder at once at least: its guard finds one embedding of two images only side by side."""


@dataclass(frozen=True)
class Duration:
    """How long the embeddings still to make will take, by the pace of the batch after the first, which warms up."""

    n_left: int
    seconds: float


@dataclass(frozen=True, eq=False)
class Target:
    """Where the embeddings of one view go."""

    embeddings: Embeddings
    wanted: frozenset[int]
    """The rows that are to have an embedding in this view."""
    view: View | None = None
    """None for the image as it is."""

    @property
    def name(self) -> str:
        """The view's name in the store."""
        return self.embeddings.view

    @property
    def keeps_images(self) -> bool:
        """Whether the prepared images of the view are stored beside their embeddings."""
        return self.view is not None and self.view.changes_colours

    def missing(self, within: range | None = None) -> list[int]:
        """The wanted rows without an embedding in this view, those with a damaged file too."""
        return [row for row in self.embeddings.missing(within, sizes=True) if row in self.wanted]

    def shown(self, image: NDArray[np.uint8], sample_id: str) -> NDArray[np.uint8]:
        """An image (H, W, 3) as the encoder is to see it."""
        return image if self.view is None else self.view.apply(image, sample_id)


@dataclass(frozen=True, eq=False)
class _Job:
    row: int
    target: Target


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
        self._n_batches = 0
        self._last: tuple[int, NDArray[np.uint8] | None] = (-1, None)

    def run(self, targets: Sequence[Target], missing: Sequence[Sequence[int]]) -> None:
        """Encode the missing rows of some targets of one key, block by block, and each image once for all of them.

        Blocks that another process owns are left to it at first. At the end they are waited for, and looked at again:
        that process may have died.
        """
        n_missing = Counter(row // BLOCK_ROWS for rows in missing for row in rows)
        if not n_missing:
            return
        owner = targets[0].embeddings  # a block is owned in all views of its key
        left = [block for block in owner.blocks() if n_missing[block.start // BLOCK_ROWS]]
        for wait in (False, True):
            blocks, left = left, []
            for block in blocks:
                if wait:
                    self._progress(self._done, self._total, "waiting for another process that embeds into this store")
                with owner.claim(block, wait=wait) as owned:
                    if owned:
                        self._encode_block(targets, block, n_missing[block.start // BLOCK_ROWS])
                    else:
                        left.append(block)

    def _encode_block(self, targets: Sequence[Target], block: range, n_planned: int) -> None:
        jobs = [_Job(row, target) for target in targets for row in target.missing(block)]
        jobs.sort(key=lambda job: job.row)  # all views of an image in turn: it is read once
        self._done += n_planned - len(jobs)  # done by another process meanwhile
        for batch in self._batches(jobs):
            started = time.perf_counter()
            self._encode_batch(batch)
            self._note(len(batch), time.perf_counter() - started)

    def _batches(self, jobs: Sequence[_Job]) -> Iterator[Sequence[_Job]]:
        """Batches of the encoder's size; the very first is the least there is, because it only warms up."""
        first = 0
        while first < len(jobs):
            size = max(self._encoder.batch_size, LEAST_BATCH) if self._n_batches else LEAST_BATCH
            yield jobs[first : first + size]
            first += size

    def _note(self, n_done: int, seconds: float) -> None:
        self._n_batches += 1
        self._done += n_done
        self._progress(self._done, self._total, "encoding")
        n_left = self._total - self._done
        if self._n_batches == 2 and n_left > 0:
            self._tell(Duration(n_left, n_left * seconds / n_done))

    def _encode_batch(self, batch: Sequence[_Job]) -> None:
        """Encode and store one batch; images that changed or broke since they were prepared are told, not used."""
        read = [(job, image) for job in batch if (image := self._image(job.row)) is not None]
        if not read:
            return
        shown = [job.target.shown(image, self._wanted[job.row].id) for job, image in read]
        # first, so that a kill loses none
        remember_unchanged(self._store, [self._wanted[row] for row in dict.fromkeys(job.row for job, _ in read)])
        values = self._encoder.encode(shown)
        for target in dict.fromkeys(job.target for job, _ in read):
            mine = [i for i, (job, _) in enumerate(read) if job.target is target]
            images = np.stack([prepare_image(shown[i], side_px=SIDE_PX) for i in mine]) if target.keeps_images else None
            target.embeddings.write([read[i][0].row for i in mine], values[mine], images)
            self.n_encoded[target.name] += len(mine)

    def _image(self, row: int) -> NDArray[np.uint8] | None:
        """The native image of a row, as it was when its sample was prepared; None, and why, where it is not."""
        if self._last[0] != row:
            self._last = row, self._read(self._wanted[row], self._store.info(row).image_digest)
        return self._last[1]

    def _read(self, entry: Entry, expected_digest: bytes) -> NDArray[np.uint8] | None:
        try:
            image, digest = entry.read_image()
        except DataError as error:
            self._failures[entry.id] = str(error)
            return None
        if digest != expected_digest:
            self._failures[entry.id] = f"{entry.id} was changed while it was being embedded; run the command again."
            return None
        return image
