"""Native images that were decoded to prepare samples, kept in memory for the encoder."""

from __future__ import annotations

import threading

import numpy as np
from numpy.typing import NDArray

MAX_DECODED_BYTES = 512 << 20
"""Enough for 682 images of 512 x 512 pixels; what does not fit is read a second time."""


class DecodedImages:
    """Images by id, each with the digest of its file, up to a total size. Threads may share it."""

    def __init__(self, max_bytes: int = MAX_DECODED_BYTES) -> None:
        self._free_bytes = max_bytes
        self._images: dict[str, tuple[bytes, NDArray[np.uint8]]] = {}
        self._lock = threading.Lock()

    def keep(self, sample_id: str, digest: bytes, image: NDArray[np.uint8]) -> None:
        """Keep an image (H, W, 3) if there is room for it."""
        with self._lock:
            if sample_id not in self._images and image.nbytes <= self._free_bytes:
                self._free_bytes -= image.nbytes
                self._images[sample_id] = digest, image

    def get(self, sample_id: str, digest: bytes) -> NDArray[np.uint8] | None:
        """The image if it was kept and its file had this digest."""
        kept_digest, image = self._images.get(sample_id, (b"", None))
        return image if kept_digest == digest else None
