"""Storage formats of embeddings: the numbers on disk and the error they introduce."""

from __future__ import annotations

import difflib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt
from zarr.codecs import BloscCodec

from nucseg_cache.errors import UnstorableEmbedding

EMBEDDING_SHAPE = (256, 64, 64)
"""Channels, grid cells down, grid cells across: what every SAM encoder returns for one image."""

LARGEST_HALF = 65504
"""The largest finite number in half precision."""

Floats = npt.NDArray[np.floating]

_HALF_EXPONENT = np.uint16(0x7C00)
"""The exponent bits of a half; all are set in infinity and NaN."""
_LARGEST_FLOAT = np.finfo(np.float32).max


@dataclass(frozen=True)
class Stored:
    """Rows in their storage format."""

    values: npt.NDArray[np.generic]
    """(n, 256, 64, 64) in the format's type."""

    scale: npt.NDArray[np.float32] | None
    """(n, 256) factor per channel; None if the format has none."""

    images: npt.NDArray[np.uint8] | None = None
    """(n, S, S, 3) prepared images of a view that keeps its own; None if the view uses the samples' images."""

    def __getitem__(self, rows: slice) -> Stored:
        """Some of the rows, as views of the arrays."""
        return Stored(*(None if array is None else array[rows] for array in self._arrays))  # type: ignore[arg-type]

    def clear(self) -> None:
        """Set all rows to zero."""
        for array in self._arrays:
            if array is not None:
                array[...] = 0

    @property
    def _arrays(self) -> tuple[npt.NDArray[np.generic] | None, ...]:
        return self.values, self.scale, self.images


class Format(ABC):
    """A way to store embeddings."""

    name: str
    """The format's name in the key."""

    dtype: str
    """The type of the numbers on disk."""

    has_scale: bool = False
    """Whether a factor per channel is stored too."""

    @property
    def read_dtype(self) -> str:
        """The type of the floats that `decode` returns."""
        return "float32" if self.has_scale else self.dtype

    row_bytes: int
    """Approximate bytes of a row on disk, measured on embeddings of real images."""

    error_bound: str
    """The largest difference between the encoder's float32 and what is read back, in words."""

    compressor = BloscCodec(cname="lz4", clevel=5, shuffle="bitshuffle")
    """Lossless; bitshuffle because neighbouring floats share their leading bits."""

    @abstractmethod
    def encode(self, values: Floats) -> Stored:
        """Convert (n, 256, 64, 64) floats to the storage format."""

    def decode(self, stored: Stored, out: Floats | None = None) -> Floats:
        """Convert stored rows to floats (n, 256, 64, 64), in `out` if given."""
        values = cast("Floats", stored.values)
        if out is None or out is values:
            return values
        np.copyto(out, values)
        return out


class Float16(Format):
    """Half precision, the default: 2 MiB per row before compression."""

    name, dtype, row_bytes = "f16", "float16", 1_800_000
    error_bound = "at most 2**-11 of each value, or 2**-25 where that is more (rounding to float16)"

    def encode(self, values: Floats) -> Stored:
        """See `Format.encode`."""
        with np.errstate(over="ignore"):  # an overflow is detected below
            half = values.astype(np.float16, copy=False)
        if not _all_finite(half):
            raise UnstorableEmbedding(
                f"an embedding contains {np.abs(values).max():.3g}, the largest float16 is {LARGEST_HALF}. "
                "Use --format f32."
            )
        return Stored(half, None)


class Float32(Format):
    """The encoder's float32 values, unchanged: 4 MiB per row before compression."""

    name, dtype, row_bytes = "f32", "float32", 4_200_000
    error_bound = "none"

    def encode(self, values: Floats) -> Stored:
        """See `Format.encode`."""
        return Stored(_as_float32(values), None)


class Codes(Format):
    """Integer codes with one factor per channel: the channel's largest magnitude divided by the largest code.

    Bitshuffle, because codes near zero share their leading bits. Blocks of 256 KiB, because with them zstd level 1
    takes a fifth of the time of level 5 without them and compresses better.
    """

    dtype, has_scale = "int8", True
    compressor = BloscCodec(cname="zstd", clevel=1, shuffle="bitshuffle", blocksize=1 << 18)

    largest: int
    """The largest code; the smallest is its opposite."""

    def encode(self, values: Floats) -> Stored:
        """See `Format.encode`."""
        values = _as_float32(values)  # a scale in float16 would lose more precision than the codes
        largest = np.float32(self.largest)
        # the largest float divided and multiplied by `largest` again would be infinite in float32
        scale = np.minimum(
            np.abs(values).max(axis=(2, 3)) / largest, np.nextafter(_LARGEST_FLOAT / largest, np.float32(0))
        )
        divisor = np.where(scale == 0, np.float32(1), scale)[:, :, None, None]  # a channel of zeros stays zeros
        steps = values / divisor
        np.rint(steps, out=steps)
        np.clip(steps, -largest, largest, out=steps)
        return Stored(steps.astype(np.int8), scale)

    def decode(self, stored: Stored, out: Floats | None = None) -> Floats:
        """See `Format.decode`."""
        assert stored.scale is not None  # noqa: S101 - encode always returns one; narrows the type
        floats: Floats = np.multiply(stored.values, stored.scale[:, :, None, None], out=out, dtype=np.float32)
        return floats


class Int8(Codes):
    """Eight bits: two fifths of the size of float16."""

    name, row_bytes, largest = "i8", 850_000, 127
    # half a step plus the error of float32 arithmetic, which is larger below the smallest normal float
    error_bound = "at most 1/253 of the largest magnitude in the value's channel, or 2**-142 where that is more"


class Int6(Codes):
    """Six bits, stored in bytes whose unused bits Blosc removes: two sevenths of the size of float16."""

    name, row_bytes, largest = "i6", 590_000, 31
    error_bound = "at most 1/61 of the largest magnitude in the value's channel, or 2**-142 where that is more"


def _as_float32(values: Floats) -> npt.NDArray[np.float32]:
    with np.errstate(over="ignore"):  # an overflow is detected below
        single = values.astype(np.float32, copy=False)
    if not np.isfinite(single).all():
        raise UnstorableEmbedding(
            f"an embedding contains {np.abs(values).max():.3g}, but the largest float32 is 3.4e38"
        )
    return single


FORMATS: dict[str, Format] = {f.name: f for f in (Float16(), Float32(), Int8(), Int6())}


def format_named(name: str) -> Format:
    """The format of that name.

    Raises:
        UnstorableEmbedding: no format has that name; the message lists the known ones.
    """
    if name not in FORMATS:
        near = difflib.get_close_matches(name, FORMATS, n=1)
        suggested = f"Did you mean {near[0]!r}? " if near else ""
        raise UnstorableEmbedding(f"no storage format is called {name!r}. {suggested}Known: {', '.join(FORMATS)}.")
    return FORMATS[name]


def checked(values: Floats) -> Floats:
    """Return the values after checking that they are embeddings.

    Raises:
        UnstorableEmbedding: another shape or type, or a value that is not finite.
    """
    if values.ndim != 4 or values.shape[1:] != EMBEDDING_SHAPE or values.dtype.kind != "f":
        raise UnstorableEmbedding(
            f"embeddings are floats of shape (n, 256, 64, 64), got {values.dtype} of shape {values.shape}"
        )
    if not _all_finite(values):
        raise UnstorableEmbedding("an embedding contains NaN or infinity: nothing of this batch was stored")
    return values


def _all_finite(values: Floats) -> bool:
    if values.dtype != np.float16:
        return bool(np.isfinite(values).all())
    # comparing bits takes a seventh of the time of np.isfinite on halves
    return bool((values.view(np.uint16) & _HALF_EXPONENT).max(initial=0) != _HALF_EXPONENT)
