"""Unpack a .zip archive into a new folder, or refuse it as a whole.

zipfile verifies checksums, reads no more than the stated size of an entry, and never creates links or writes outside
the folder. But it renames unsafe entries silently; here they are refused, because the archive is not the published one.
"""

from __future__ import annotations

import re
import stat
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from nucseg_pipeline.fetch.errors import FetchError, RefusedError
from nucseg_pipeline.fetch.staging import check_space

if TYPE_CHECKING:
    from nucseg_pipeline.progress import Progress

_MIB = 1 << 20
_ABSOLUTE = re.compile(r"/|[A-Za-z]:")
_LEAVES = re.compile(r"(^|[/\\])\.\.($|[/\\])")


def unpack(archive: Path, folder: Path, max_bytes: int, progress: Progress) -> None:
    """Unpack an archive into `folder`, which must not exist yet; `progress` counts MiB.

    Raises:
        RefusedError: it is no archive, is damaged, or holds what `check_entries` refuses.
        FetchError: there is no room for it.
    """
    try:
        with zipfile.ZipFile(archive) as content:
            entries = check_entries(archive, content.infolist(), max_bytes)
            total, done = sum(entry.file_size for entry in entries), 0
            check_space(folder.parent, total, f"The content of {archive.name}")
            folder.mkdir()
            for entry in entries:
                content.extract(entry, folder)
                done += entry.file_size
                progress(done // _MIB, max(total // _MIB, 1), f"unpacking {archive.name}")
    except FetchError:
        raise
    except OSError as error:
        raise FetchError(
            f"{archive} cannot be unpacked to {folder}: {error.strerror or error}. Correct that and try again."
        ) from None
    except Exception as error:  # zipfile and the decompressors raise whatever damaged bytes lead to
        raise _refused(archive, f"{_content_type(archive)} ({printable(str(error))})") from None


def check_entries(archive: Path, entries: list[zipfile.ZipInfo], max_bytes: int) -> list[zipfile.ZipInfo]:
    """The files among the entries of an archive.

    Raises RefusedError if an entry leaves the folder, is a link or a device, or has a name that another entry or a
    terminal may be confused by, and if the files would take more than `max_bytes`.
    """
    for entry in entries:
        if reason := _unsafe(entry):
            raise _refused(archive, f"entry {printable(entry.orig_filename)} {reason}")
    files = [entry for entry in entries if not entry.is_dir()]
    if len({entry.filename.casefold() for entry in files}) < len(files):
        raise _refused(archive, "it contains two files whose names are equal, or differ only in case")
    if not files:
        raise _refused(archive, "it contains no files")
    n_bytes = sum(entry.file_size for entry in files)
    if n_bytes > max_bytes:
        raise _refused(archive, f"it would unpack to {n_bytes} bytes, expected at most {max_bytes}")
    return files


def printable(text: str) -> str:
    """Text from an untrusted file, quoted so that it can be shown in a terminal."""
    quoted = ascii(text)
    return quoted if len(quoted) <= 120 else f"{quoted[:117]}...'"


def _unsafe(entry: zipfile.ZipInfo) -> str:
    """Why an entry must not be unpacked; empty if it may be."""
    name = entry.orig_filename
    if stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link or a device"
    if _ABSOLUTE.match(name):
        return "has an absolute path"
    if _LEAVES.search(name):
        return "leaves the folder"
    return "" if name.strip("/.") and name.isprintable() and "\\" not in name else "has an invalid name"


def _content_type(archive: Path) -> str:
    with archive.open("rb") as file:
        start = file.read(512).lstrip().lower()
    if start.startswith((b"<!doctype", b"<html")):
        return "it is a web page, such as a login page"
    return "it is damaged or truncated" if start.startswith(b"pk\x03\x04") else "it is not a .zip archive"


def _refused(archive: Path, reason: str) -> RefusedError:
    return RefusedError(f"{archive} is not unpacked: {reason}. It is not the published archive: download it again.")
