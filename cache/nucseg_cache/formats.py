"""How an embedding is stored: the numbers on disk, and what is lost on the way there."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt
from zarr.codecs import BloscCodec

from nucseg_cache.errors import UnstorableEmbedding

EMBEDDING_SHAPE = (256, 64, 64)
"""Channels, grid cells down, grid cells across: what every SAM encoder returns for one image."""

Floats = npt.NDArray[np.floating]

_HALF_EXPONENT = np.uint16(0x7C00)
"""Set in full where a half is infinite or no number."""
_LARGEST_FLOAT = np.finfo(np.float32).max


@dataclass(frozen=True)
class Stored:
    """Rows as they lie on disk."""

    values: npt.NDArray[np.generic]
    """(n, 256, 64, 64) in the format's type."""

    scale: npt.NDArray[np.float32] | None
    """(n, 256) factor per channel, or None where the format has none."""

    images: npt.NDArray[np.uint8] | None = None
    """(n, S, S, 3) the prepared images of a view that keeps its own, or None where the samples' serve."""

    def __getitem__(self, rows: slice) -> Stored:
        """Some of the rows, where they are."""
        return Stored(*(None if array is None else array[rows] for array in self._arrays))  # type: ignore[arg-type]

    def clear(self) -> None:
        """Make all rows zeros."""
        for array in self._arrays:
            if array is not None:
                array[...] = 0

    @property
    def _arrays(self) -> tuple[npt.NDArray[np.generic] | None, ...]:
        return self.values, self.scale, self.images


class Format(ABC):
    """One way to store embeddings."""

    name: str
    """As it stands in the key."""

    dtype: str
    """The type of the numbers on disk."""

    has_scale: bool = False
    """Whether a factor per channel is stored beside them."""

    @property
    def read_dtype(self) -> str:
        """The type of the floats that `decode` returns."""
        return "float32" if self.has_scale else self.dtype

    row_bytes: int
    """About what a row takes on disk, measured on embeddings of real images."""

    error_bound: str
    """What is lost between the encoder's float32 and a read, in words, for people."""

    compressor = BloscCodec(cname="lz4", clevel=5, shuffle="bitshuffle")
    """Lossless; bitshuffle because neighbouring floats share their leading bits."""

    @abstractmethod
    def encode(self, values: Floats) -> Stored:
        """Turn (n, 256, 64, 64) floats into what is stored."""

    @abstractmethod
    def decode(self, stored: Stored, out: Floats | None = None) -> Floats:
        """Turn what is stored into floats of shape (n, 256, 64, 64), in `out` where it is given."""


class Float16(Format):
    """Half precision, the default: 2 MiB a row before compression."""

    name, dtype, row_bytes = "f16", "float16", 1_800_000
    error_bound = "at most 2**-11 of each value, or 2**-25 where that is more (rounding to float16)"

    def encode(self, values: Floats) -> Stored:
        """See `Format.encode`."""
        with np.errstate(over="ignore"):  # an overflow is found and named below
            half = values.astype(np.float16, copy=False)
        if not _all_finite(half):
            raise UnstorableEmbedding(
                f"an embedding holds {np.abs(values).max():.3g}, float16 holds at most 65504: use --format f32"
            )
        return Stored(half, None)

    def decode(self, stored: Stored, out: Floats | None = None) -> Floats:
        """See `Format.decode`."""
        return _unchanged(stored, out)


class Float32(Format):
    """What a float32 encoder returned, bit for bit: 4 MiB a row before compression."""

    name, dtype, row_bytes = "f32", "float32", 4_200_000
    error_bound = "none"

    def encode(self, values: Floats) -> Stored:
        """See `Format.encode`."""
        return Stored(_single(values), None)

    def decode(self, stored: Stored, out: Floats | None = None) -> Floats:
        """See `Format.decode`."""
        return _unchanged(stored, out)


class Codes(Format):
    """Whole numbers with one factor per channel, its largest magnitude divided by the largest code.

    Bitshuffle, because codes that lie near zero share their leading bits; blocks of 256 KiB, with which zstd's lowest
    level stores in a fifth of the time what its level 5 stores without, and less.
    """

    dtype, has_scale = "int8", True
    compressor = BloscCodec(cname="zstd", clevel=1, shuffle="bitshuffle", blocksize=1 << 18)

    largest: int
    """The largest code; the smallest is its opposite."""

    def encode(self, values: Floats) -> Stored:
        """See `Format.encode`."""
        values = _single(values)  # the scale of a float16 channel in float16 would cost more than the codes do
        largest = np.float32(self.largest)
        # the largest float divided by it and multiplied again is infinite in float32
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
        assert stored.scale is not None  # noqa: S101 - encode always gives one; narrows the type
        floats: Floats = np.multiply(stored.values, stored.scale[:, :, None, None], out=out, dtype=np.float32)
        return floats


class Int8(Codes):
    """Eight bits: two fifths of float16's size."""

    name, row_bytes, largest = "i8", 850_000, 127
    # half a step, and float32 arithmetic on top, which below the smallest normal float costs more
    error_bound = "at most 1/253 of the largest magnitude in the value's channel, or 2**-142 where that is more"


class Int6(Codes):
    """Six bits, in the space that Blosc leaves of eight: two sevenths of float16's size."""

    name, row_bytes, largest = "i6", 590_000, 31
    error_bound = "at most 1/61 of the largest magnitude in the value's channel, or 2**-142 where that is more"


def _unchanged(stored: Stored, out: Floats | None) -> Floats:
    """The stored floats, in `out` where that is not where they are already."""
    values = cast("Floats", stored.values)
    if out is None or out is values:
        return values
    np.copyto(out, values)
    return out


def _single(values: Floats) -> npt.NDArray[np.float32]:
    """The values as float32."""
    with np.errstate(over="ignore"):  # an overflow is found and named below
        single = values.astype(np.float32, copy=False)
    if not np.isfinite(single).all():
        raise UnstorableEmbedding(f"an embedding holds {np.abs(values).max():.3g}, float32 holds at most 3.4e38")
    return single


FORMATS: dict[str, Format] = {f.name: f for f in (Float16(), Float32(), Int8(), Int6())}


def format_named(name: str) -> Format:
    """The format of that name.

    Raises:
        UnstorableEmbedding: no format has that name; the message lists those that exist.
    """
    if name not in FORMATS:
        raise UnstorableEmbedding(f"no storage format is called {name!r}. Known: {', '.join(FORMATS)}.")
    return FORMATS[name]


def checked(values: Floats) -> Floats:
    """The rows themselves, once it is certain that they are embeddings.

    Raises:
        UnstorableEmbedding: another shape or type, or a value that is not finite.
    """
    if values.ndim != 4 or values.shape[1:] != EMBEDDING_SHAPE or values.dtype.kind != "f":
        raise UnstorableEmbedding(
            f"embeddings are floats of shape (n, 256, 64, 64), got {values.dtype} of shape {values.shape}"
        )
    if not _all_finite(values):
        raise UnstorableEmbedding("an embedding holds values that are not finite: nothing of this batch was stored")
    return values


def _all_finite(values: Floats) -> bool:
    if values.dtype != np.float16:
        return bool(np.isfinite(values).all())
    # by the bits, in a seventh of the time that numpy takes to ask halves
    return bool((values.view(np.uint16) & _HALF_EXPONENT).max(initial=0) != _HALF_EXPONENT)


LARGEST_HALF = 65504
"""The largest number of half precision."""
