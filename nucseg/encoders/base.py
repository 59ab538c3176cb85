"""The interface of every encoder, and the checks that every embedding passes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from nucseg.adaptive_batch import AdaptiveBatcher
from nucseg.encoders import preprocess
from nucseg.encoders.architectures import EMBEDDING_SHAPE
from nucseg.encoders.preprocess import check_image, to_input
from nucseg.errors import EncoderError

MIN_BATCH = 2
"""Smallest number of images to encode together: `guard` notices a shared embedding only within a batch."""

CLEARLY_DIFFERENT = 1.0
"""Mean absolute difference, in grey levels, above which two images must not share one embedding."""

WAY_OUT = "Nothing of this batch can be trusted: encode it with precision float32 (or bfloat16)."


class Encoder(ABC):
    """A frozen SAM-family image encoder: uint8 RGB images of any size -> (B, 256, 64, 64) float32."""

    identity: Mapping[str, str]
    """Everything that changes the embedding: architecture, weights, layer, input_px, preprocessing, precision."""

    provenance: Mapping[str, str]
    """What changes the embedding only within the precision's tolerance: versions, device, threads."""

    batch_size: int
    """Images per forward pass; halved permanently if they do not fit into memory."""

    note: str = ""
    """A warning to show wherever the encoder is used; may be empty."""

    def encode(self, images: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Embed images, each (H, W, 3) uint8 RGB in its native size.

        If there are more than `batch_size`, they are encoded in several passes; the checks compare all of them.

        Returns:
            (B, 256, 64, 64) float32, one row per image, in their order.

        Raises:
            EncoderError: an image is not uint8 RGB; or an embedding has another shape, is not finite or constant, or
                is shared by two images that clearly differ.
            OutOfMemory: not even one image fits into memory.
        """
        rows = self.run(images)
        guard(images, rows)
        return rows

    def run(self, images: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Embed images as `encode` does, without the checks: the caller runs `guard` on the rows.

        So the device can go on with the next batch while another thread checks this one.
        """
        for position, image in enumerate(images):
            check_image(image, position)
        rows = np.empty((len(images), *EMBEDDING_SHAPE), np.float32)
        done, at_once = 0, AdaptiveBatcher(self.batch_size)
        for part, embedded in at_once.batches(images, self._embed_part):
            rows[done : done + len(part)] = embedded
            done += len(part)
        self.batch_size = at_once.size
        return rows

    def resize(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Resize (H, W, 3) to the size that the network reads; an image of that size is returned unchanged.

        `encode` does this itself; callers that queue images can do it earlier to save memory.
        """
        return preprocess.resize(image)

    def _prepare(self, images: Sequence[NDArray[np.uint8]]) -> Any:
        """Convert images to the input of `_embed`: (B, 3, 1024, 1024) float32 unless overridden."""
        return np.stack([to_input(image) for image in images])

    @abstractmethod
    def _embed(self, inputs: Any) -> NDArray[np.float32]:
        """Run the network on the output of `_prepare` -> (B, 256, 64, 64)."""

    def _embed_part(self, images: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        return _checked_shape(self._embed(self._prepare(images)), len(images))


def guard(images: Sequence[NDArray[np.uint8]], rows: NDArray[np.float32]) -> None:
    """Raise EncoderError if an embedding cannot be right: not finite, constant, or shared by different images.

    Half precision can overflow in a norm and silently return garbage, or the same embedding for every image.
    """
    broken = [i for i, row in enumerate(rows) if not np.isfinite(row).all()]
    if broken:
        raise EncoderError(f"The embedding of {_named(broken)} contains values that are not finite. {WAY_OUT}")
    flat = [i for i, row in enumerate(rows) if (row == row[:, :1, :1]).all()]
    if flat:
        raise EncoderError(f"The embedding of {_named(flat)} is constant over the image. {WAY_OUT}")
    _check_distinct(images, rows)


def _check_distinct(images: Sequence[NDArray[np.uint8]], rows: NDArray[np.float32]) -> None:
    first_with: dict[bytes, int] = {}
    for position, row in enumerate(rows):
        twin = first_with.setdefault(xxhash.xxh128_digest(row.tobytes()), position)
        if twin != position and _differ(images[twin], images[position]):
            raise EncoderError(
                f"The embeddings of {_named([twin, position])} are identical, but the images are not. {WAY_OUT}"
            )


def _differ(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> bool:
    """Whether two images clearly differ at the encoder's input size; rounding may hide small differences."""
    a, b = (preprocess.resize(image).astype(np.float32) for image in (first, second))
    return a.shape != b.shape or float(np.abs(a - b).mean()) > CLEARLY_DIFFERENT


def _checked_shape(batch: NDArray[np.float32], n_images: int) -> NDArray[np.float32]:
    expected = (n_images, *EMBEDDING_SHAPE)
    if batch.shape != expected:
        raise EncoderError(
            f"The encoder returned shape {batch.shape} for {n_images} image(s), expected {expected}: "
            "it is not a SAM-family encoder at 1024 px. Use another one."
        )
    return batch


def _named(positions: Sequence[int]) -> str:
    noun = "image" if len(positions) == 1 else "images"
    listed = ", ".join(str(position) for position in positions[:8])
    more = f" and {len(positions) - 8} more" if len(positions) > 8 else ""
    return f"{noun} {listed}{more} of the batch"
