"""What every encoder is, and the guard that every embedding passes before anyone sees it."""

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

CLEARLY_DIFFERENT = 1.0
"""Mean absolute difference, in grey levels, above which two images must not share one embedding."""

WAY_OUT = "Nothing of this batch can be trusted: encode it with precision float32 (or bfloat16)."


class Encoder(ABC):
    """A frozen SAM-family image encoder: uint8 RGB images of any size -> (B, 256, 64, 64) float32."""

    identity: Mapping[str, str]
    """Everything that changes the embedding: architecture, weights, layer, input_px, preprocessing, precision."""

    provenance: Mapping[str, str]
    """What made it, without changing it beyond the precision's tolerance: versions, device, threads."""

    batch_size: int
    """Images sent through the network at once; halved for good where they do not fit into memory."""

    note: str = ""
    """A warning to show wherever the encoder is used; empty where there is nothing to warn of."""

    def encode(self, images: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Embed images, each (H, W, 3) uint8 RGB in its native size.

        More images than `batch_size` are sent through in turn; the guard compares all of them.

        Returns:
            (B, 256, 64, 64) float32, one row an image, in their order.

        Raises:
            EncoderError: an image that is not uint8 RGB; an embedding of another shape, not finite, constant, or
                shared by two images that clearly differ.
            OutOfMemory: no memory even for one image.
        """
        rows = self.run(images)
        guard(images, rows)
        return rows

    def run(self, images: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """As `encode`, but unguarded: whoever calls this calls `guard` before anyone sees the rows.

        A device need not wait while another thread does.
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
        """Bring (H, W, 3) to the size that the network is shown; what has it comes back as it is.

        `encode` does so itself: this is for those who keep images only until they are encoded.
        """
        return preprocess.resize(image)

    def _prepare(self, images: Sequence[NDArray[np.uint8]]) -> Any:
        """Make of images what `_embed` reads, one entry an image: (B, 3, 1024, 1024) float32 unless overridden."""
        return np.stack([to_input(image) for image in images])

    @abstractmethod
    def _embed(self, inputs: Any) -> NDArray[np.float32]:
        """Run the network on what `_prepare` returned -> (B, 256, 64, 64)."""

    def _embed_part(self, images: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        return _checked_shape(self._embed(self._prepare(images)), len(images))


def guard(images: Sequence[NDArray[np.uint8]], rows: NDArray[np.float32]) -> None:
    """Raise EncoderError where an embedding cannot be right: not finite, constant, shared by different images.

    Half precision can overflow in a norm and give garbage, or one and the same embedding for every image,
    without any error of its own.
    """
    broken = [i for i, row in enumerate(rows) if not np.isfinite(row).all()]
    if broken:
        raise EncoderError(f"The embedding of {_named(broken)} holds values that are not finite. {WAY_OUT}")
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
                f"The embeddings of {_named([twin, position])} are identical, the images are not. {WAY_OUT}"
            )


def _differ(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> bool:
    """Whether two images look different to the encoder, beyond what rounding of its input may hide."""
    a, b = (preprocess.resize(image).astype(np.float32) for image in (one, other))
    return a.shape != b.shape or float(np.abs(a - b).mean()) > CLEARLY_DIFFERENT


def _checked_shape(batch: NDArray[np.float32], n_images: int) -> NDArray[np.float32]:
    expected = (n_images, *EMBEDDING_SHAPE)
    if batch.shape != expected:
        raise EncoderError(
            f"The encoder returned shape {batch.shape} for {n_images} image(s), expected {expected}: "
            "it is not an encoder of the SAM family at 1024 px. Use another."
        )
    return batch


def _named(positions: Sequence[int]) -> str:
    noun = "image" if len(positions) == 1 else "images"
    shown = ", ".join(str(position) for position in positions[:8])
    more = f" and {len(positions) - 8} more" if len(positions) > 8 else ""
    return f"{noun} {shown}{more} of the batch"


LEAST_BATCH = 2
"""Images given to the encoder at once at least: its guard finds one embedding of two images only side by side."""
