"""Folders that are made for something that may then not come about."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path


def missing_folders(folder: Path) -> list[Path]:
    """The folder and those that it lies in, as far as they are not there yet; those within others first."""
    return [one for one in (folder, *folder.parents) if not one.exists()]


def remove_empty(folders: Sequence[Path]) -> None:
    """Delete folders that were made, those within others first, as far as they are there and still empty."""
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()
