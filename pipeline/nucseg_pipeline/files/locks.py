"""Folders that one process at a time writes to, and that are made for something that may then not come about."""

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path


def missing_folders(folder: Path) -> list[Path]:
    """The folder and those that it lies in, as far as they are not there yet; those within others first."""
    return [one for one in (folder, *folder.parents) if not one.exists()]


def remove_empty(folders: Sequence[Path]) -> None:
    """Delete folders that were made, those within others first, as far as they are there and still empty."""
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()


@contextmanager
def locked(folder: Path, busy: Exception | None = None) -> Iterator[None]:
    """Hold the kernel's lock on a folder, which ends with the process that has it.

    Where another process has it this raises `busy`; None waits. On a file system without locks the user is trusted to
    write one thing at a time.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (fcntl.LOCK_NB if busy else 0))
        except BlockingIOError:
            if busy:
                raise busy from None
        except OSError:
            pass
        yield
    finally:
        os.close(descriptor)
