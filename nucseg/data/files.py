"""List the images and masks in folders, and read files."""

import hashlib
import os
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path

from nucseg.errors import DataError
from nucseg.paths import opened_file

MAX_BYTES = 1 << 30
"""Larger than any image of the maximum number of pixels, even without compression."""

IMAGE_SUFFIXES = (".png", ".tif", ".tiff", ".jpg", ".jpeg", ".bmp", ".webp")
"""Formats of images and masks; a mask in one with lossy compression is refused when it is read."""

OUTLINE_SUFFIXES = (".geojson", ".json")

MASK_SUFFIXES = (*IMAGE_SUFFIXES, *OUTLINE_SUFFIXES)


def image_files(folder: Path, suffixes: Sequence[str] = IMAGE_SUFFIXES) -> dict[str, Path]:
    """Name -> file of the images in a folder, in plain string order of the file names, without hidden files.

    A name is the file's stem in composed Unicode (NFC), because copying between systems can change its representation.
    Files that differ only in their suffix keep it in their names, in lower case. Raises DataError if the folder cannot
    be listed, if files differ only in the case of their suffix or in Unicode representation, or if a name cannot be an
    id.
    """
    files = _files(folder, suffixes)
    stems = Counter(composed(path.stem) for path in files)
    return _by_name((path.stem if stems[composed(path.stem)] == 1 else full_name(path), path) for path in files)


def masks_by_name(folder: Path) -> dict[str, list[Path]]:
    """Name, with and without suffix, -> the masks in a folder that have it; errors are as in `image_files`."""
    masks = defaultdict(list)
    for path in _files(folder, MASK_SUFFIXES):
        _check_text(path.stem, path)
        masks[composed(path.stem)].append(path)
        masks[full_name(path)].append(path)
    return masks


def mask_of(name: str, image: Path, masks: Mapping[str, Sequence[Path]]) -> Path | None:
    """The mask of an image called `name` (see `image_files`) in `masks_by_name`; None if there is none.

    Its name, with or without its suffix, is that of the image, with or without the image's suffix. Raises DataError if
    there are two.
    """
    found = list(dict.fromkeys(file for key in (name, full_name(image)) for file in masks.get(key, ())))
    if len(found) > 1:
        raise DataError(
            f"{found[0]} and {found[1].name} have the same name: both would be the mask of {image.name}. Move one of "
            "them away."
        )
    return found[0] if found else None


def skipped_files(folder: Path, suffixes: Sequence[str]) -> list[str]:
    """The names of the files in a folder that have another suffix, without hidden ones."""
    return [path.name for path in _children(folder) if path.suffix.lower() not in suffixes and not path.is_dir()]


def skipped_note(skipped: Mapping[str, Sequence[str]], known: Sequence[str]) -> tuple[str, ...]:
    """A note that counts files by folder and suffix, given the name of a folder -> names of its files not read.

    It also names the suffixes that are read there, `known`.
    """
    parts = []
    for folder, names in skipped.items():
        suffixes = Counter(Path(name).suffix.lower() or "no suffix" for name in names)
        if names:
            counts = ", ".join(f"{suffix}: {count}" for suffix, count in sorted(suffixes.items()))
            parts.append(f"{len(names)} in {folder} ({counts})")
    formats = ", ".join(suffix.removeprefix(".") for suffix in known)
    return (f"Files of other formats, not read: {'; '.join(parts)}. Formats read: {formats}.",) if parts else ()


def full_name(path: Path) -> str:
    """A file's name in composed Unicode, with its suffix in lower case."""
    return composed(path.stem) + path.suffix.lower()


def composed(text: str) -> str:
    """Text in composed Unicode (NFC)."""
    return unicodedata.normalize("NFC", text)


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


def _files(folder: Path, suffixes: Sequence[str]) -> list[Path]:
    return [path for path in _children(folder) if path.suffix.lower() in suffixes and not path.is_dir()]


def _children(folder: Path) -> list[Path]:
    try:
        return sorted((path for path in folder.iterdir() if not path.name.startswith(".")), key=lambda path: path.name)
    except OSError as cause:
        raise DataError(f"{folder} cannot be listed: {cause.strerror}. Fix this, or choose another folder.") from cause


def _by_name(named: Iterable[tuple[str, Path]]) -> dict[str, Path]:
    paths: dict[str, Path] = {}
    for text, path in named:
        _check_text(text, path)
        name = composed(text)
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


def file_bytes(file: Path) -> bytes:
    """The content of an image or mask. Raises DataError if it cannot be read, or is larger than MAX_BYTES."""
    with _opened(file) as stream:
        return stream.read()


def file_digest(file: Path) -> bytes:
    """SHA-256 of the content of an image or mask, see `file_bytes`."""
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
