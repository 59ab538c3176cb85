"""Unpacking a .zip archive into a folder of its own, or not at all."""

from __future__ import annotations

import lzma
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nucseg_pipeline.fetching.download import MIB, Progress
from nucseg_pipeline.fetching.entries import Planned, plan, refused, shown
from nucseg_pipeline.fetching.errors import FetchError
from nucseg_pipeline.fetching.workplace import check_space, sync_files

_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    UnicodeError,
    ValueError,
    OverflowError,
    NotImplementedError,
    RuntimeError,
)
"""What zipfile raises over archives that are damaged, or made to be."""


def unpack(archive: Path, folder: Path, most_bytes: int, progress: Progress) -> None:
    """Unpack an archive into `folder`, which must not be there yet. What was unpacked is on the disk afterwards.

    Every entry's CRC is checked, and none may unpack to more than it states. `progress` is called with MiB.

    Raises:
        RefusedError: it is damaged, no archive, or holds what may not be unpacked (see `entries.plan`).
        FetchError: there is no room for it.
    """
    with _opened(archive) as content:
        planned = plan(archive, content.infolist(), most_bytes)
        total = sum(one.info.file_size for one in planned)
        check_space(folder.parent, total, f"What {archive.name} holds")
        folder.mkdir()
        done = 0
        for one in planned:
            for n_bytes in _unpack(content, archive, one, folder):
                done += n_bytes
                progress(done // MIB, max(total // MIB, 1), f"unpacking {archive.name}")
    sync_files(folder)


def _unpack(content: zipfile.ZipFile, archive: Path, one: Planned, folder: Path) -> Iterator[int]:
    """Write one file; yields the bytes that were written, piece by piece."""
    file = folder / one.path
    file.parent.mkdir(parents=True, exist_ok=True)
    left = one.info.file_size
    with _named(archive, one), content.open(one.info) as packed, file.open("xb") as unpacked:
        while piece := packed.read(MIB):
            left -= len(piece)
            unpacked.write(piece)
            yield len(piece)
        if left:
            raise zipfile.BadZipFile(f"{left} bytes are missing")


@contextmanager
def _opened(archive: Path) -> Iterator[zipfile.ZipFile]:
    try:
        content = zipfile.ZipFile(archive)
    except _DAMAGE as error:
        raise refused(archive, f"{_kind(archive)} ({error or type(error).__name__})") from None
    with content:
        yield content


@contextmanager
def _named(archive: Path, one: Planned) -> Iterator[None]:
    try:
        yield
    except _DAMAGE as error:
        raise refused(archive, f"entry {shown(one.info.filename)} is damaged ({error})") from None
    except OSError as error:
        raise FetchError(
            f"{shown(str(one.path))} of {archive} cannot be written: {error.strerror}. Mend that and run the same "
            "command again."
        ) from None


def _kind(archive: Path) -> str:
    with archive.open("rb") as file:
        start = file.read(512).lstrip().lower()
    if start.startswith((b"<!doctype", b"<html")):
        return "it is a web page, such as a login"
    return "it is damaged or cut off" if start.startswith(b"pk\x03\x04") else "it is no .zip archive"
