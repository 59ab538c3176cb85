"""Folders that one process at a time writes to."""

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def locked(folder: Path, busy: Exception | None = None) -> Iterator[None]:
    """Create a folder and keep other processes out of it; folders that were created and stay empty are removed again.

    The lock belongs to the kernel and ends with the process, however it ends. On a file system without locks the user
    is trusted to start one process at a time.

    Args:
        folder: what to lock.
        busy: raised where another process has the lock; None waits for it.

    Raises:
        OSError: the folder cannot be created.
    """
    descriptor, created = _create_and_lock(folder, busy)
    try:
        yield
    finally:
        remove_empty(created)  # while no other process can have it
        os.close(descriptor)


def missing_folders(folder: Path) -> list[Path]:
    """The folder and its parents, as far as they do not exist yet; the innermost first."""
    return [path for path in (folder, *folder.parents) if not path.exists()]


def remove_empty(folders: Sequence[Path]) -> None:
    """Remove folders, innermost first, as far as they exist and are empty."""
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()


def _create_and_lock(folder: Path, busy: Exception | None) -> tuple[int, list[Path]]:
    """The descriptor of the locked folder, and the folders that were created for it."""
    while True:
        created = missing_folders(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(folder, os.O_RDONLY)
        except OSError:
            remove_empty(created)
            raise
        try:
            _lock(descriptor, busy)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), folder.stat()):
                    return descriptor, created
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # the process that had the lock removed the empty folder before it let go


def _lock(descriptor: int, busy: Exception | None) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (fcntl.LOCK_NB if busy else 0))
    except BlockingIOError:
        if busy:
            raise busy from None
    except OSError:
        pass  # a file system without locks
