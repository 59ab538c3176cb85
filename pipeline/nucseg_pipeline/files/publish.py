"""How a report, and what goes with it, reaches the disk: whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from nucseg.errors import ConfigError
from nucseg_pipeline.files.locks import locked, missing_folders, remove_empty

_DRAFT = ".report-"
"""How the name of a folder begins whose files are not yet in their places."""


def check_writable(folder: Path) -> None:
    """Find out before any work is done whether a report can be written to a folder; leaves nothing behind.

    Raises:
        ConfigError: it cannot.
    """
    made = missing_folders(folder)
    try:
        with _draft(folder):
            pass
    finally:
        remove_empty(made)


def write_files(folder: Path, contents: Mapping[str, str | bytes]) -> None:
    """Write files, given by name: all of them are on disk before the first one takes its place.

    An older report in the folder stays as it is until then, and files of other names stay in any case.

    Raises:
        ConfigError: they cannot be written.
    """
    with _draft(folder) as draft:
        for name, content in contents.items():
            with (draft / name).open("wb") as file:
                file.write(content.encode() if isinstance(content, str) else content)
                file.flush()
                os.fsync(file.fileno())
        for name in contents:
            (draft / name).replace(folder / name)


@contextmanager
def _draft(folder: Path) -> Iterator[Path]:
    """Give an empty folder inside the other one, for the time of the block, to one process at a time."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder):
            for leftover in folder.glob(f"{_DRAFT}*"):  # of a process that was killed: nobody else can be writing
                shutil.rmtree(leftover, ignore_errors=True)
            with tempfile.TemporaryDirectory(prefix=_DRAFT, dir=folder) as draft:
                yield Path(draft)
    except OSError as error:
        raise ConfigError(
            f"The files cannot be written to {folder}: {error.strerror or error}. "
            "Choose another folder with --out, or make room."
        ) from error
