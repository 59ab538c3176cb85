"""Data sets whose images and masks are files: listing them, their digests, and the entry that reads them."""

import hashlib
import os
import unicodedata
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nucseg.data.images import decode_image, decode_values
from nucseg.data.masks import instances_from
from nucseg.data.sample import Entry, Sample
from nucseg.errors import DataError
from nucseg.paths import opened_file

MAX_BYTES = 1 << 30
"""More than an image of the most pixels takes when nothing of it is packed."""

IMAGE_SUFFIXES = (".png", ".tif", ".tiff", ".jpg", ".jpeg")


@dataclass(frozen=True, kw_only=True)
class ImageFileEntry(Entry):
    """An image file whose masks are files too. A subclass says which, and what they mean together."""

    image_file: Path

    @abstractmethod
    def _mask_files(self) -> tuple[Path, ...]:
        """The files that the masks are read from, at least one, in the order in which they count."""

    @abstractmethod
    def _combined(
        self, masks: Iterator[npt.NDArray[Any]], size: tuple[int, int]
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.bool_]]:
        """Instances and ignore, both of `size` (H, W), from the decoded mask files, which come one at a time."""

    def digests(self) -> tuple[bytes, bytes]:
        """Digest of the image file, and of the mask files: see `mask_digest`."""
        return _file_digest(self.image_file), mask_digest([_file_digest(file) for file in self._mask_files()])

    def read_image(self) -> tuple[npt.NDArray[np.uint8], bytes]:
        """Decode the image file."""
        data = _file_bytes(self.image_file)
        return decode_image(data, self.image_file), hashlib.sha256(data).digest()

    def read(self) -> tuple[Sample, bytes, bytes]:
        """Decode all files. Masks of another size than the image's are a DataError."""
        image, image_digest = self.read_image()
        height, width, _ = image.shape
        files = self._mask_files()
        data = [_file_bytes(file) for file in files]
        masks = (self._decode_mask(*pair, (height, width)) for pair in zip(data, files, strict=True))
        instances, ignore = self._combined(masks, (height, width))
        sample = Sample(
            id=self.id,
            group=self.group,
            stratum=self.stratum,
            mpp=self.mpp,
            image=image,
            instances=instances,
            ignore=ignore,
        )
        return sample, image_digest, mask_digest([hashlib.sha256(part).digest() for part in data])

    def _decode_mask(self, data: bytes, file: Path, size: tuple[int, int]) -> npt.NDArray[Any]:
        values = decode_values(data, file)
        if values.shape != size:
            (mask_h, mask_w), (image_h, image_w) = values.shape, size
            raise DataError(
                f"{file} is {mask_w} x {mask_h} pixels, but its image {self.image_file} is {image_w} x {image_h}. "
                "A mask has the size of its image: one of the two files is not the one that is meant."
            )
        return values


@dataclass(frozen=True, kw_only=True)
class FileEntry(ImageFileEntry):
    """An image file, the file of its instances and, where there is one, the file of what to ignore."""

    instances_file: Path
    ignore_file: Path | None = None
    """A mask of the image's size; whatever is not 0 in it is ignored."""

    def _mask_files(self) -> tuple[Path, ...]:
        return (self.instances_file, self.ignore_file) if self.ignore_file else (self.instances_file,)

    def _combined(
        self, masks: Iterator[npt.NDArray[Any]], size: tuple[int, int]
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.bool_]]:
        instances = instances_from(next(masks), self.instances_file)
        return instances, next(masks) != 0 if self.ignore_file else np.zeros(size, np.bool_)


def mask_digest(digests: Sequence[bytes]) -> bytes:
    """One digest for the mask files of an image, given theirs in the order in which they count.

    A single file keeps its own digest, the one that `sha256sum` prints; of several it is the SHA-256 of their
    32-byte digests one after the other.
    """
    return digests[0] if len(digests) == 1 else hashlib.sha256(b"".join(digests)).digest()


def listed(folder: Path, suffixes: Sequence[str] = IMAGE_SUFFIXES) -> dict[str, Path]:
    """Name -> file of the images in a folder, in plain string order of the file names; hidden files are passed over.

    A name is the stem in composed Unicode (NFC), since the same name may be spelt in two ways, and copying between
    systems changes the spelling. Raises DataError if the folder cannot be listed, if two files differ in nothing but
    the suffix or the spelling, or if no id can be made of a name.
    """
    files: dict[str, Path] = {}
    for file in _children(folder):
        if file.suffix.lower() not in suffixes or file.is_dir():
            continue
        name = _name(file, file.stem)
        if name in files:
            raise DataError(f"{files[name]} and {file.name} have one name: which is meant? Move one of them away.")
        files[name] = file
    return files


def subfolders(folder: Path) -> dict[str, Path]:
    """Name -> folder in a folder, in plain string order; hidden ones and what macOS adds to archives are passed over.

    Of the names the same holds as of those of files, see `listed`.
    """
    folders: dict[str, Path] = {}
    for child in _children(folder):
        if not child.is_dir() or child.name == "__MACOSX":
            continue
        name = _name(child, child.name)
        if name in folders:
            raise DataError(f"{folders[name]} and {child} have one name: which is meant? Move one of them away.")
        folders[name] = child
    return folders


def found_in(folder: Path) -> str:
    """What lies in a folder, for an error: 'a/, b.png and 3 more', or 'nothing'."""
    return some([f"{child.name}/" if child.is_dir() else child.name for child in _children(folder)]) or "nothing"


def some(names: Sequence[str], limit: int = 5) -> str:
    """Name the first few and count the rest: 'a, b and 3 more'."""
    more = len(names) - limit
    return ", ".join(names[:limit]) + (f" and {more} more" if more > 0 else "")


def _children(folder: Path) -> list[Path]:
    try:
        return sorted((child for child in folder.iterdir() if not child.name.startswith(".")), key=lambda c: c.name)
    except OSError as cause:
        raise DataError(f"{folder} cannot be listed: {cause.strerror}. Mend that, or name another folder.") from cause


def _name(place: Path, name: str) -> str:
    """The name that an id is made of."""
    # undecodable bytes come out of listings as lone surrogates (Cs); tabs and line breaks (Cc) would break every table
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in name):
        what = "is no text in UTF-8" if any(unicodedata.category(one) == "Cs" for one in name) else "is no plain text"
        raise DataError(f"{place.name!r} in {place.parent} {what}, so no id can be made of it. Rename it.")
    return unicodedata.normalize("NFC", name)


def _file_bytes(file: Path) -> bytes:
    with _opened(file) as stream:
        return stream.read()


def _file_digest(file: Path) -> bytes:
    with _opened(file) as stream:
        return hashlib.file_digest(stream, "sha256").digest()


@contextmanager
def _opened(file: Path) -> Iterator[BufferedReader]:
    """Open a file of a size that an image can have."""
    try:
        with opened_file(file) as stream:
            if (n_bytes := os.fstat(stream.fileno()).st_size) > MAX_BYTES:
                raise DataError(
                    f"{file} has {n_bytes:,} bytes, more than the {MAX_BYTES:,} that an image or a mask may have. Cut "
                    "it into tiles first."
                )
            yield stream
    except OSError as cause:
        raise DataError(
            f"{file} cannot be read: {cause.strerror}. Mend that, or move it and what belongs to it away."
        ) from cause
