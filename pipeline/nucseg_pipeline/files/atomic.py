"""Files that are either complete or absent."""

from __future__ import annotations

import os
from pathlib import Path

from nucseg.errors import TrainingError


def write_whole(path: Path, content: bytes) -> None:
    """Write a file under a temporary name, bring it to the disk, then give it its name.

    Whoever reads, and whoever is killed, sees the old content or the new one. Raises TrainingError where the file
    cannot be written.
    """
    temporary = path.with_name(f".{path.name}.part")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise TrainingError(
            f"{path} cannot be written: {error.strerror or error}. Free some space or mend the permission, then "
            "run the same command again (`nucseg train` with --resume): the last checkpoint is whole."
        ) from error


def _sync_folder(folder: Path) -> None:
    """Bring a rename to the disk; some file systems cannot, and then it comes there when it comes."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:
        pass
    finally:
        os.close(descriptor)
