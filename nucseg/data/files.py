"""Data sets of image and mask files: list the files, compute their digests, and read them."""

import hashlib
import os
import unicodedata
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
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
"""Larger than any image of the maximum number of pixels, even without compression."""

IMAGE_SUFFIXES = (".png", ".tif", ".tiff", ".jpg", ".jpeg")


@dataclass(frozen=True, kw_only=True)
class ImageFileEntry(Entry):
    """An image file with one or more mask files, which a subclass combines."""

    image_file: Path
    convert: str = "none"
    """How images of more than 8 bits are read, see `conversion`."""

    @abstractmethod
    def _mask_files(self) -> tuple[Path, ...]:
        """At least one mask file, in a fixed order."""

    @abstractmethod
    def _combined(
        self, masks: Iterator[npt.NDArray[Any]], size: tuple[int, int]
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.bool_]]:
        """Combine the decoded mask files, given one at a time, into instances and ignore, both of `size` (H, W)."""

    def digests(self) -> tuple[bytes, bytes]:
        """Digests of the image file and of the mask files, see `mask_digest`."""
        return _file_digest(self.image_file), mask_digest([_file_digest(file) for file in self._mask_files()])

    def read_image(self) -> tuple[npt.NDArray[np.uint8], bytes]:
        """Decode the image file."""
        data = _file_bytes(self.image_file)
        return decode_image(data, self.image_file, self.convert), hashlib.sha256(data).digest()

    def read(self) -> tuple[Sample, bytes, bytes]:
        """Decode all files. Raises DataError if a mask and the image differ in size."""
        image, image_digest = self.read_image()
        size = image.shape[0], image.shape[1]
        files = self._mask_files()
        data = [_file_bytes(file) for file in files]
        masks = (self._decode_mask(*pair, size) for pair in zip(data, files, strict=True))
        sample = self._sample(image, *self._combined(masks, size))
        return sample, image_digest, mask_digest([hashlib.sha256(content).digest() for content in data])

    def _decode_mask(self, data: bytes, file: Path, size: tuple[int, int]) -> npt.NDArray[Any]:
        values = decode_values(data, file)
        if values.shape != size:
            (mask_h, mask_w), (image_h, image_w) = values.shape, size
            raise DataError(
                f"{file} is {mask_w} x {mask_h} pixels, but its image {self.image_file} is {image_w} x {image_h}. "
                "They must have the same size: replace the wrong file."
            )
        return values


@dataclass(frozen=True, kw_only=True)
class FileEntry(ImageFileEntry):
    """An image file, its instance file and, optionally, the file of its ignored area."""

    instances_file: Path
    ignore_file: Path | None = None
    """A mask of the image's size; everything but 0 is ignored."""

    def _mask_files(self) -> tuple[Path, ...]:
        return (self.instances_file, self.ignore_file) if self.ignore_file else (self.instances_file,)

    def _combined(
        self, masks: Iterator[npt.NDArray[Any]], size: tuple[int, int]
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.bool_]]:
        instances = instances_from(next(masks), self.instances_file)
        return instances, next(masks) != 0 if self.ignore_file else np.zeros(size, np.bool_)


def mask_digest(digests: Sequence[bytes]) -> bytes:
    """Combine the digests of an image's mask files, in their order.

    The digest of a single file is unchanged, the one that `sha256sum` prints; of several, it is the SHA-256 of their
    concatenated 32-byte digests.
    """
    return digests[0] if len(digests) == 1 else hashlib.sha256(b"".join(digests)).digest()


def image_files(folder: Path, suffixes: Sequence[str] = IMAGE_SUFFIXES) -> dict[str, Path]:
    """Name -> file of the images in a folder, in plain string order of the file names, without hidden files.

    A name is the file's stem in composed Unicode (NFC), because copying between systems can change its representation.
    Raises DataError if the folder cannot be listed, if files differ only in their suffix or Unicode representation, or
    if a name cannot be an id.
    """
    files = (path for path in _children(folder) if path.suffix.lower() in suffixes and not path.is_dir())
    return _by_name((path.stem, path) for path in files)


def subfolders(folder: Path) -> dict[str, Path]:
    """Name -> subfolder, in plain string order, without hidden ones and macOS's addition to archives.

    Names and errors are as in `image_files`.
    """
    folders = (path for path in _children(folder) if path.is_dir() and path.name != "__MACOSX")
    return _by_name((path.name, path) for path in folders)


def found_in(folder: Path) -> str:
    """The contents of a folder for an error message: 'a/, b.png and 3 more', or 'nothing'."""
    return some([f"{path.name}/" if path.is_dir() else path.name for path in _children(folder)]) or "nothing"


def some(names: Sequence[str], limit: int = 5) -> str:
    """Name the first few and count the rest: 'a, b and 3 more'."""
    more = len(names) - limit
    return ", ".join(names[:limit]) + (f" and {more} more" if more > 0 else "")


def _children(folder: Path) -> list[Path]:
    try:
        return sorted((path for path in folder.iterdir() if not path.name.startswith(".")), key=lambda path: path.name)
    except OSError as cause:
        raise DataError(f"{folder} cannot be listed: {cause.strerror}. Fix this, or choose another folder.") from cause


def _by_name(named: Iterable[tuple[str, Path]]) -> dict[str, Path]:
    paths: dict[str, Path] = {}
    for text, path in named:
        _check_text(text, path)
        name = unicodedata.normalize("NFC", text)
        if name in paths:
            raise DataError(f"{paths[name]} and {path.name} have the same name. Move one of them away.")
        paths[name] = path
    return paths


def _check_text(name: str, path: Path) -> None:
    """Refuse undecodable bytes, which listings return as lone surrogates (Cs), and what breaks tables (Cc)."""
    categories = {unicodedata.category(character) for character in name}
    if categories & {"Cc", "Cs"}:
        problem = "is not UTF-8" if "Cs" in categories else "has control characters"
        raise DataError(f"The name {path.name!r} in {path.parent} {problem}, so it cannot be an id. Rename it.")


def _file_bytes(file: Path) -> bytes:
    with _opened(file) as stream:
        return stream.read()


def _file_digest(file: Path) -> bytes:
    with _opened(file) as stream:
        return hashlib.file_digest(stream, "sha256").digest()


@contextmanager
def _opened(file: Path) -> Iterator[BufferedReader]:
    try:
        with opened_file(file) as stream:
            if (n_bytes := os.fstat(stream.fileno()).st_size) > MAX_BYTES:
                raise DataError(
                    f"{file} has {n_bytes:,} bytes, more than the {MAX_BYTES:,} allowed for an image or a mask. Cut "
                    "it into tiles first."
                )
            yield stream
    except OSError as cause:
        raise DataError(
            f"{file} cannot be read: {cause.strerror}. Fix this, or move the image and its masks away."
        ) from cause
