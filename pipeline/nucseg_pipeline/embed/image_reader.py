"""Threads that read native images ahead of the encoder, apply the view, and resize to the encoder's input."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from nucseg.data import Entry, prepare_image
from nucseg.errors import DataError
from nucseg_cache import Store
from nucseg_pipeline.embed.decoded_images import DecodedImages
from nucseg_pipeline.embed.sync import READERS
from nucseg_pipeline.embed.view_target import SIDE_PX, ViewTarget


@dataclass(frozen=True, eq=False)
class ImageRequest:
    """An image to encode in one view."""

    row: int
    target: ViewTarget


@dataclass(frozen=True, eq=False)
class EncoderInput:
    """The image that the encoder gets for one request."""

    request: ImageRequest
    image: NDArray[np.uint8]
    """(H, W, 3), its longest side that of the encoder's input, so that large native images do not fill the memory."""
    prepared: NDArray[np.uint8] | None
    """(S, S, 3), the prepared image if the view keeps one."""


@dataclass(frozen=True)
class UnreadableImage:
    """An image that was damaged or changed after its sample was prepared."""

    id: str
    reason: str


class ImageReader:
    """Reads requested images in threads; consecutive requests for one row share the native image."""

    def __init__(
        self,
        store: Store,
        wanted: Mapping[int, Entry],
        resize: Callable[[NDArray[np.uint8]], NDArray[np.uint8]],
        decoded: DecodedImages,
    ) -> None:
        """Read the `wanted` rows (row -> entry) of a store unless they are in `decoded`, and `resize` them."""
        self._store, self._wanted, self._resize, self._decoded = store, wanted, resize, decoded
        self._threads = ThreadPoolExecutor(READERS, "read")
        self._last: tuple[int, Future[NDArray[np.uint8]]] = (-1, Future())

    def __enter__(self) -> ImageReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._threads.shutdown(cancel_futures=True)

    def submit(self, request: ImageRequest) -> Future[EncoderInput | UnreadableImage]:
        """Start to read an image; submit the requests for one row one after the other."""
        if self._last[0] != request.row:
            self._last = request.row, self._threads.submit(self._native, request.row)
        # queued behind the native image, so a thread that waits for it cannot keep it from being read
        return self._threads.submit(self._input, request, self._last[1])

    def _native(self, row: int) -> NDArray[np.uint8]:
        entry, expected_digest = self._wanted[row], self._store.info(row).image_digest
        kept = self._decoded.get(entry.id, expected_digest)
        if kept is not None:
            return kept
        image, digest = entry.read_image()
        if digest != expected_digest:
            raise DataError(f"{entry.id} was changed while it was being embedded. Run the command again.")
        return image

    def _input(self, request: ImageRequest, native: Future[NDArray[np.uint8]]) -> EncoderInput | UnreadableImage:
        sample_id = self._wanted[request.row].id
        try:
            image = request.target.apply(native.result(), sample_id)
        except DataError as error:
            return UnreadableImage(sample_id, str(error))
        prepared = prepare_image(image, side_px=SIDE_PX) if request.target.keeps_images else None
        return EncoderInput(request, self._resize(image), prepared)
