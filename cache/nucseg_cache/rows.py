"""Rows of a store as Python objects, and the digests in their records."""

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
"""The length of the digest of an image or mask file; the caller computes it."""


@dataclass(frozen=True, slots=True)
class RowInfo:
    """The description of a row, without its pixels."""

    row: int
    id: str
    group: str
    stratum: str
    mpp: float | None
    """Microns per pixel of the native image; None if unknown."""
    size: tuple[int, int]
    """Height and width of the native image in pixels."""
    image_digest: bytes
    """32 bytes over the content of the image file."""
    mask_digest: bytes
    """32 bytes over the content of the mask files."""
    present: bool = True
    """False once the image is no longer in the data set: not used for training, kept in case it returns."""


@dataclass(frozen=True, eq=False)
class SampleRow:
    """A prepared sample as stored."""

    id: str
    group: str
    stratum: str
    mpp: float | None
    size: tuple[int, int]
    image: npt.NDArray[np.uint8]
    """(S, S, 3) RGB; S is the side of the prepared images."""
    instances: npt.NDArray[np.int32]
    """(S, S), 0 is background."""
    ignore: npt.NDArray[np.bool_]
    """(S, S), True for pixels without annotation: padding, vague areas."""
    image_digest: bytes
    mask_digest: bytes

    def info(self, row: int, *, present: bool = True) -> RowInfo:
        """The sample's description when stored at that row."""
        return RowInfo(
            row, self.id, self.group, self.stratum, self.mpp, self.size, self.image_digest, self.mask_digest, present
        )


def check_sample(sample: SampleRow, side_px: int) -> None:
    """Check that a sample can be stored without loss.

    Raises:
        UnstorableSample: a wrong shape or type, a digest of another length, or invalid text.
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
        raise UnstorableSample(f"mpp of {sample.id!r} is {sample.mpp}; give a finite number, or None if unknown")
    for text in (sample.id, sample.group, sample.stratum):
        if any("\ud800" <= character <= "\udfff" for character in text):  # Python's form of undecodable file names
            raise UnstorableSample(f"{text!r} is not valid Unicode; rename the file or folder that it comes from")


def description_digest(info: RowInfo) -> bytes:
    """16 bytes over the description of a row, including the row number."""
    # the output of json.dumps with sorted keys, no spaces and ensure_ascii=False, in a quarter of the time
    text = (
        f'{{"group":{_quoted(info.group)},"id":{_quoted(info.id)},"image_digest":"{info.image_digest.hex()}",'
        f'"mask_digest":"{info.mask_digest.hex()}","mpp":"{_bytes_on_disk(info.mpp)}",'
        f'"present":{"true" if info.present else "false"},"row":{info.row:d},'
        f'"size":[{int(info.size[0])},{int(info.size[1])}],"stratum":{_quoted(info.stratum)}}}'
    )
    return xxhash.xxh3_128_digest(text.encode())


def _bytes_on_disk(mpp: float | None) -> str:
    """The stored bytes in hexadecimal, because languages print floats differently."""
    return "" if mpp is None else struct.pack("<d", mpp).hex()


def pixel_digest(sample: SampleRow) -> bytes:
    """16 bytes over the id and the three arrays of a sample, including their types and shapes."""
    digest = xxhash.xxh3_128(sample.id.encode() + b"\0")
    for array in (sample.image, sample.instances, sample.ignore):
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.digest()
