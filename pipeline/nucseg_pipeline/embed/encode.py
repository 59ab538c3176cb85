"""Encode the missing embeddings of a store: unchanged images, or views of them.

Reading, encoding and writing overlap: while the encoder works on a batch, threads read the images of the next batches,
and one more thread writes the batch before. Memory holds READ_AHEAD batches that were read, one that is encoded, and
one that is written.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
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
from nucseg_pipeline.embed.decoded_images import DecodedImages
from nucseg_pipeline.embed.estimate import OnEstimate, TimeEstimate
from nucseg_pipeline.embed.image_reader import EncoderInput, ImageReader, ImageRequest, UnreadableImage
from nucseg_pipeline.embed.view_target import ViewTarget
from nucseg_pipeline.progress import Progress

READ_AHEAD = 2
"""Batches whose images are read while another one is encoded."""

RETRY_S = 0.2
"""Time between two attempts to claim a block that another process owns."""


@dataclass(frozen=True, eq=False)
class _ClaimedBlock:
    """A block of rows that this process owns, and what is missing in it."""

    requests: Sequence[ImageRequest]
    claim: ExitStack
    """Closed by the writing thread after the block's last batch."""


@dataclass(frozen=True, eq=False)
class _Batch:
    """Images of one block that are encoded together."""

    requests: Sequence[ImageRequest]
    block: _ClaimedBlock
    is_last: bool
    """Of its block."""


class EncodingRun:
    """Encodes into one store, with one progress count and one time estimate for all that is encoded."""

    def __init__(
        self,
        encoder: Encoder,
        store: Store,
        wanted: Mapping[int, Entry],
        failures: dict[str, str],
        n_total: int,
        progress: Progress,
        on_estimate: OnEstimate = lambda estimate: None,
        decoded: DecodedImages | None = None,
    ) -> None:
        """Nothing is encoded yet.

        Args:
            encoder: computes the embeddings.
            store: opened for writing.
            wanted: row -> its entry in the data set.
            failures: id -> why its image could not be used; added to.
            n_total: embeddings to make, over all targets.
            progress: called with (done, total, what).
            on_estimate: called once, when the speed is known.
            decoded: images that need not be read again.
        """
        self.n_encoded: Counter[str] = Counter()
        """Embeddings made so far, by the name of the view."""
        self._encoder, self._store, self._wanted, self._failures = encoder, store, wanted, failures
        self._total, self._done = n_total, 0
        self._progress, self._on_estimate = progress, on_estimate
        self._decoded = decoded or DecodedImages(0)
        self._n_planned = self._n_written = 0
        self._written_at = 0.0

    def run(self, targets: Sequence[ViewTarget], missing: Sequence[Sequence[int]]) -> None:
        """Encode the missing rows of targets of one key, block by block; each image is read once for all targets.

        Blocks that another process owns are skipped at first. At the end they are waited for and checked again, since
        that process may have died.
        """
        n_missing = Counter(row // BLOCK_ROWS for rows in missing for row in rows)
        if not n_missing:
            return
        blocks = [block for block in targets[0].embeddings.blocks() if n_missing[block.start // BLOCK_ROWS]]
        for block in self._run(targets, blocks, n_missing):
            # one block at a time: two processes that own blocks and wait for each other's would never end
            self._progress(self._done, self._total, "waiting for another process that embeds into this store")
            while self._run(targets, [block], n_missing):
                time.sleep(RETRY_S)

    def _run(self, targets: Sequence[ViewTarget], blocks: Sequence[range], n_missing: Mapping[int, int]) -> list[range]:
        """Encode what is missing in the blocks that can be claimed; returns the others."""
        busy: list[range] = []
        claims: list[ExitStack] = []
        with ThreadPoolExecutor(1, "store") as store_thread:

            def batches() -> Iterator[_Batch]:
                for rows in blocks:
                    block = store_thread.submit(_claim, targets, rows, claims).result()
                    if block is None:
                        busy.append(rows)
                        continue
                    # another process may have encoded some of them meanwhile
                    self._done += n_missing[rows.start // BLOCK_ROWS] - len(block.requests)
                    yield from self._batches(block)

            try:
                with ImageReader(self._store, self._wanted, self._encoder.resize, self._decoded) as reader:
                    self._encode(_read_ahead(reader, batches()), store_thread)
            finally:
                store_thread.submit(_release, claims).result()
        return busy

    def _encode(
        self, batches: Iterator[tuple[_Batch, list[EncoderInput | UnreadableImage]]], store_thread: ThreadPoolExecutor
    ) -> None:
        writing: tuple[int, Future[None]] | None = None
        self._written_at = time.perf_counter()
        for batch, images in batches:
            inputs = [image for image in images if isinstance(image, EncoderInput)]
            self._failures |= {image.id: image.reason for image in images if isinstance(image, UnreadableImage)}
            values = self._encoder.run([item.image for item in inputs]) if inputs else None
            self._finish(writing)
            writing = len(batch.requests), store_thread.submit(self._write, batch, inputs, values)
        self._finish(writing)

    def _finish(self, writing: tuple[int, Future[None]] | None) -> None:
        """Wait until a batch is written, and count it."""
        if writing is None:
            return
        n_images, written = writing
        written.result()
        now = time.perf_counter()
        seconds, self._written_at = now - self._written_at, now
        self._n_written += 1
        self._done += n_images
        self._progress(self._done, self._total, "encoding")
        n_left = self._total - self._done
        if self._n_written == 2 and n_left > 0:
            self._on_estimate(TimeEstimate(n_left, n_left * seconds / n_images))

    def _batches(self, block: _ClaimedBlock) -> Iterator[_Batch]:
        """Batches of the encoder's size; the very first has the smallest size, because it only warms up."""
        first = 0
        while first < len(block.requests):
            last = first + (max(self._encoder.batch_size, MIN_BATCH) if self._n_planned else MIN_BATCH)
            self._n_planned += 1
            yield _Batch(block.requests[first:last], block, is_last=last >= len(block.requests))
            first = last

    def _write(self, batch: _Batch, inputs: Sequence[EncoderInput], values: NDArray[np.float32] | None) -> None:
        """Check the embeddings of one batch and store them."""
        if values is not None:
            guard([item.image for item in inputs], values)
            rows = dict.fromkeys(item.request.row for item in inputs)
            remember_unchanged(self._store, [self._wanted[row] for row in rows])  # first, so that a kill loses none
            for target in dict.fromkeys(item.request.target for item in inputs):
                self._write_view(target, inputs, values)
        if batch.is_last:
            batch.block.claim.close()

    def _write_view(self, target: ViewTarget, inputs: Sequence[EncoderInput], values: NDArray[np.float32]) -> None:
        """Store those embeddings of a batch that belong to one view."""
        chosen = [i for i, item in enumerate(inputs) if item.request.target is target]
        prepared = [image for i in chosen if (image := inputs[i].prepared) is not None]
        stored = rounded(values[chosen], target.embeddings.key.fields["format"])
        target.embeddings.write(
            [inputs[i].request.row for i in chosen], stored, np.stack(prepared) if prepared else None
        )
        self.n_encoded[target.name] += len(chosen)


def rounded(values: NDArray[np.float32], storage: str) -> NDArray[np.floating]:
    """Round to the type that a format stores, with torch, which gives numpy's values twenty times faster.

    Values that half precision cannot hold are returned as they are; the store refuses them.
    """
    if storage != "f16" or max(values.max(), -values.min()) > LARGEST_HALF:
        return values
    import torch  # an ONNX encoder runs without it: imported while the first batch is written, not before

    half: NDArray[np.floating] = torch.from_numpy(values).half().numpy()
    return half


def _claim(targets: Sequence[ViewTarget], rows: range, claims: list[ExitStack]) -> _ClaimedBlock | None:
    """Claim a block in all views of its key and list what is missing in it; None if another process owns it."""
    with ExitStack() as claim:
        if not claim.enter_context(targets[0].embeddings.claim(rows)):
            return None
        requests = [ImageRequest(row, target) for target in targets for row in target.missing(rows)]
        block = _ClaimedBlock(sorted(requests, key=lambda request: request.row), claim.pop_all())
    claims.append(block.claim)
    if not requests:
        block.claim.close()
    return block


def _release(claims: Sequence[ExitStack]) -> None:
    """Release all blocks; those that were finished are released already."""
    for claim in claims:
        claim.close()


def _read_ahead(
    reader: ImageReader, batches: Iterator[_Batch]
) -> Iterator[tuple[_Batch, list[EncoderInput | UnreadableImage]]]:
    """Each batch with its images, while those of the next batches are read."""
    coming: deque[tuple[_Batch, list[Future[EncoderInput | UnreadableImage]]]] = deque()
    for batch in batches:
        coming.append((batch, [reader.submit(request) for request in batch.requests]))
        if len(coming) > READ_AHEAD:
            yield _results(*coming.popleft())
    while coming:
        yield _results(*coming.popleft())


def _results(
    batch: _Batch, images: Sequence[Future[EncoderInput | UnreadableImage]]
) -> tuple[_Batch, list[EncoderInput | UnreadableImage]]:
    return batch, [image.result() for image in images]
