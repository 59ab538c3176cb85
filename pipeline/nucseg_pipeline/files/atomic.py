"""Files that are either complete or absent."""

from __future__ import annotations

import os
from pathlib import Path


def write_whole(path: Path, content: bytes) -> None:
    """Write a file under a temporary name, bring it to the disk, then rename it.

    A reader sees the old content or the new one, and so does the next run of a process that is killed meanwhile.

    Raises:
        OSError: the file cannot be written; `filename` is its final name.
    """
    temporary = path.with_name(f".{path.name}.part")
    try:
        write_synced(temporary, content)
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error


def write_synced(path: Path, content: bytes) -> None:
    """Write a file and bring it to the disk."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def is_temporary(path: Path) -> bool:
    """Whether a file is what `write_whole` was writing when its process was killed."""
    return path.name.startswith(".") and path.name.endswith(".part")


def _sync_folder(folder: Path) -> None:
    """Bring a rename to the disk, on file systems that can."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:
        pass
    finally:
        os.close(descriptor)
