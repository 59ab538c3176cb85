"""Write all files of a report to a temporary folder, then rename them into place one by one."""

from __future__ import annotations

import errno
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from nucseg.errors import ConfigError
from nucseg_pipeline.files.atomic import write_synced
from nucseg_pipeline.files.locks import locked

_DRAFT = ".report-"
"""Prefix of the temporary folder that files are written to before they are renamed into place."""


def check_writable(folder: Path) -> None:
    """Check, before any work is done, that a report can be written to a folder; leaves nothing behind.

    Raises:
        ConfigError: it cannot.
    """
    with _draft(folder):
        pass


def write_files(folder: Path, contents: Mapping[str, str | bytes]) -> None:
    """Write files, given by name; they are renamed into place only after all of them are on disk.

    Until then the previous report in the folder is unchanged. Files of other names are never touched.

    Raises:
        ConfigError: they cannot be written.
    """
    with _draft(folder) as draft:
        for name, content in contents.items():
            write_synced(draft / name, content.encode() if isinstance(content, str) else content)
        for name in contents:
            (draft / name).replace(folder / name)


@contextmanager
def _draft(folder: Path) -> Iterator[Path]:
    """Create a temporary folder inside `folder` for the block; one process at a time."""
    try:
        with locked(folder):
            for leftover in folder.glob(f"{_DRAFT}*"):  # left by a killed process: we hold the lock
                shutil.rmtree(leftover, ignore_errors=True)
            with tempfile.TemporaryDirectory(prefix=_DRAFT, dir=folder) as draft:
                yield Path(draft)
    except OSError as error:
        space = ", or free some space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
        raise ConfigError(
            f"The files cannot be written to {folder}: {error.strerror or error}. "
            f"Choose another folder with --out{space}."
        ) from error
