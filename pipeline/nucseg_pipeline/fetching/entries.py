"""Which entries of a .zip archive may be unpacked, and where each goes: all is checked before anything is written."""

from __future__ import annotations

import re
import stat
import unicodedata
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from nucseg_pipeline.fetching.errors import RefusedError

MOST_ENTRIES = 1_000_000
_MOST_LEVELS, _MOST_PATH_BYTES, _MOST_NAME_BYTES = 32, 1000, 255

_ENCRYPTED = 0x1 | 0x40 | 0x2000
"""Flag bits: encrypted, strongly encrypted, with a masked directory."""
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
_KINDS = {
    stat.S_IFLNK: "a link",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
}
_DRIVE = re.compile(r"[A-Za-z]:")


@dataclass(frozen=True)
class Planned:
    """One file of an archive, and where it goes."""

    info: zipfile.ZipInfo
    path: PurePosixPath
    """Relative to the folder that the archive is unpacked to."""


def plan(archive: Path, infos: Sequence[zipfile.ZipInfo], most_bytes: int) -> list[Planned]:
    """The files of an archive, in order. RefusedError, which names archive and entry, if one may not be unpacked.

    Nothing is made harmless silently: an archive in which one entry is not what it should be is not the one that was
    published.
    """
    if len(infos) > MOST_ENTRIES:
        raise refused(archive, f"holds {len(infos)} entries, where {MOST_ENTRIES} at most are expected")
    planned = []
    taken: dict[str, tuple[str, bool]] = {}
    for info in infos:
        if why := _fault(info):
            raise refused(archive, f"entry {shown(info.orig_filename)} {why}")
        path = PurePosixPath(info.filename)
        if why := _collision(path, _is_folder(info), taken):
            raise refused(archive, f"entry {shown(info.filename)} {why}")
        if not _is_folder(info):
            planned.append(Planned(info, path))
    if not planned:
        raise refused(archive, "holds no files")
    _refuse_bomb(archive, planned, most_bytes)
    return planned


def shown(name: str) -> str:
    """A name that may hold anything, fit for a message."""
    text = ascii(name)
    return text if len(text) <= 120 else f"{text[:117]}...'"


def _fault(info: zipfile.ZipInfo) -> str:
    """What is wrong with an entry by itself; empty where nothing is."""
    kind = stat.S_IFMT(info.external_attr >> 16)
    if info.flag_bits & _ENCRYPTED:
        return "is encrypted"
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return f"is {_KINDS.get(kind, 'no file')}, no file"
    if _is_folder(info) and (info.file_size or kind == stat.S_IFREG):
        return "is a folder by its name and a file by what it holds"
    if not _is_folder(info) and kind == stat.S_IFDIR:
        return "is a file by its name and a folder by its kind"
    if info.compress_type not in _METHODS:
        return f"is compressed by method {info.compress_type}, which cannot be read"
    return _name_fault(info.orig_filename)


def _is_folder(info: zipfile.ZipInfo) -> bool:
    return info.orig_filename.endswith("/")  # info.is_dir() fails over an empty name


def _name_fault(name: str) -> str:
    """What is wrong with the name of an entry."""
    parts = name.removesuffix("/").split("/")
    if name.startswith("/") or _DRIVE.match(name):
        return "has an absolute name"
    if ".." in parts:
        return "leads out of the folder (..)"
    if "\\" in name:
        return "has a backslash in its name"
    if any(part in ("", ".") for part in parts):
        return "has an empty step in its name"
    if any(unicodedata.category(letter) in ("Cc", "Cf", "Cs") for letter in name):
        return "has letters in its name that cannot be seen"
    if len(parts) > _MOST_LEVELS or len(name.encode()) > _MOST_PATH_BYTES:
        return "has too long a name"
    return "has too long a name" if any(len(part.encode()) > _MOST_NAME_BYTES for part in parts) else ""


def _collision(path: PurePosixPath, is_dir: bool, taken: dict[str, tuple[str, bool]]) -> str:
    """Why a path cannot stand beside those that are taken, to which it is added.

    Names that differ in case or Unicode form alone are one file on some file systems.
    """
    for step, folder in _steps(path, is_dir):
        spelled, was_folder = taken.get(_folded(step), (step, folder))
        if spelled != step:
            return f"differs from {shown(spelled)} in case or Unicode form alone"
        if was_folder != folder:
            return f"needs {shown(step)} as a folder and as a file"
        if not folder and _folded(step) in taken:
            return "is there twice"
        taken[_folded(step)] = step, folder
    return ""


def _steps(path: PurePosixPath, is_dir: bool) -> Iterator[tuple[str, bool]]:
    for parent in reversed(path.parents[:-1]):
        yield str(parent), True
    yield str(path), is_dir


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", name).casefold())


def _refuse_bomb(archive: Path, planned: Sequence[Planned], most_bytes: int) -> None:
    unpacked = sum(one.info.file_size for one in planned)
    if unpacked > most_bytes:
        raise refused(archive, f"would unpack to {unpacked} bytes, where {most_bytes} at most are expected")
    packed, size = sum(one.info.compress_size for one in planned), archive.stat().st_size
    if packed > size:
        raise refused(archive, f"holds entries that overlap: {packed} packed bytes in a file of {size}")


def refused(archive: Path, why: str) -> RefusedError:
    """The error that says why an archive is not unpacked."""
    return RefusedError(f"{archive} is not unpacked: {why}. It is not the archive that was published: get it again.")
