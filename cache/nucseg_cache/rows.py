"""One row of a store as Python sees it, and the digests that its record holds."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from json.encoder import encode_basestring as _quoted

import numpy as np
import numpy.typing as npt
import xxhash

from nucseg_cache.errors import UnstorableSample

DIGEST_BYTES = 16
"""The length of an xxh3-128 digest."""

FILE_DIGEST_BYTES = 32
"""The length of the digest of a file's content, which the caller computes."""


@dataclass(frozen=True, slots=True)
class RowInfo:
    """What is known of a row without reading its pixels."""

    row: int
    id: str
    group: str
    stratum: str
    mpp: float | None
    """Microns a pixel of the native image, where known."""
    size: tuple[int, int]
    """Height and width of the native image in pixels."""
    image_digest: bytes
    """32 bytes over the content of the image's file."""
    mask_digest: bytes
    """32 bytes over the content of the masks' files."""
    present: bool = True
    """False once the image has vanished from the data set: never trained on, kept in case it comes back."""


@dataclass(frozen=True, eq=False)
class SampleRow:
    """One prepared sample, as it is stored."""

    id: str
    group: str
    stratum: str
    mpp: float | None
    size: tuple[int, int]
    image: npt.NDArray[np.uint8]
    """(S, S, 3) RGB, S the side of the preparation."""
    instances: npt.NDArray[np.int32]
    """(S, S), 0 is background."""
    ignore: npt.NDArray[np.bool_]
    """(S, S), True where nothing is known: padding, vague areas."""
    image_digest: bytes
    mask_digest: bytes

    def info(self, row: int, *, present: bool = True) -> RowInfo:
        """The row's description, were it stored at that row."""
        return RowInfo(
            row,
            self.id,
            self.group,
            self.stratum,
            self.mpp,
            self.size,
            self.image_digest,
            self.mask_digest,
            present,
        )


def check_sample(sample: SampleRow, side_px: int) -> None:
    """Look at a sample before anything of it is written.

    Raises:
        UnstorableSample: what would come back from the store is not what is given.
    """
    expected = {"image": ("uint8", (side_px, side_px, 3)), "instances": ("int32", (side_px, side_px)),
                "ignore": ("bool", (side_px, side_px))}  # fmt: skip
    for name, (dtype, shape) in expected.items():
        array = getattr(sample, name)
        if (array.dtype, array.shape) != (dtype, shape):
            raise UnstorableSample(
                f"{name} of {sample.id!r} is {array.dtype} of shape {array.shape}, the store holds {dtype} of {shape}"
            )
    if {len(sample.image_digest), len(sample.mask_digest)} != {FILE_DIGEST_BYTES}:
        raise UnstorableSample(f"the digests of {sample.id!r} must have {FILE_DIGEST_BYTES} bytes")
    if sample.mpp is not None and not math.isfinite(sample.mpp):
        raise UnstorableSample(f"mpp of {sample.id!r} is {sample.mpp}; give a number, or None where it is not known")
    for text in (sample.id, sample.group, sample.stratum):
        if any("\ud800" <= character <= "\udfff" for character in text):  # how Python shows a badly encoded file name
            raise UnstorableSample(f"{text!r} is no Unicode text; rename the file or folder that it comes from")


def description_digest(info: RowInfo) -> bytes:
    """16 bytes over everything that is known of a row without its pixels, the row number included."""
    # what json.dumps gives with sorted names, no spaces and no escapes that are not needed, in a quarter of the time
    text = (
        f'{{"group":{_quoted(info.group)},"id":{_quoted(info.id)},"image_digest":"{info.image_digest.hex()}",'
        f'"mask_digest":"{info.mask_digest.hex()}","mpp":"{_bytes_on_disk(info.mpp)}",'
        f'"present":{"true" if info.present else "false"},"row":{info.row:d},'
        f'"size":[{int(info.size[0])},{int(info.size[1])}],"stratum":{_quoted(info.stratum)}}}'
    )
    return xxhash.xxh3_128_digest(text.encode())


def _bytes_on_disk(mpp: float | None) -> str:
    """In hexadecimal, because no two languages print a number alike."""
    return "" if mpp is None else struct.pack("<d", mpp).hex()


def pixel_digest(sample: SampleRow) -> bytes:
    """16 bytes over the id and the three arrays of a sample, their types and shapes included."""
    digest = xxhash.xxh3_128(sample.id.encode() + b"\0")
    for array in (sample.image, sample.instances, sample.ignore):
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.digest()
