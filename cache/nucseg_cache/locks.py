"""Kernel locks that separate the writers of a local store and are released when their process dies.

Each store has a lock file next to it. Byte 0 guards the samples. Each key has its own range of bytes: the first guards
the shape of its arrays, the others guard one block of rows each. Writers of an object store must be coordinated by one
scheduler instead (see ../README.md).
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nucseg_cache.errors import access
from nucseg_cache.location import wait_for_requests

SAMPLES = 0
_BLOCKS_PER_KEY = 1 << 32
ALL = -1
"""Stands for all slots of a store."""


def shape_slot(key_hash: str) -> int:
    """The byte that guards the shape of a key's arrays."""
    return (1 + int(key_hash[:7], 16)) * _BLOCKS_PER_KEY


def block_slot(key_hash: str, block: int) -> int:
    """The byte that guards one block of rows of a key."""
    return shape_slot(key_hash) + 1 + block


class StoreLocks:
    """The locks of one local store.

    POSIX record locks belong to a process and are lost when it closes *any* descriptor of the file. Hence there is one
    descriptor per file for the life of the process, and a set that separates the threads of a process.
    """

    _open: dict[Path, StoreLocks] = {}  # noqa: RUF012 - the process-wide table described above
    _guard = threading.Lock()

    def __init__(self, file: Path) -> None:
        self._file = file
        with access(str(file), "opening the lock file"):
            self._descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        self._held: set[int] = set()
        self._released = threading.Condition()

    @classmethod
    def of(cls, store: Path) -> StoreLocks:
        """The locks of the store in that folder; its parent folder is created if needed."""
        store = store.resolve()  # a link to a store means the same store
        file = store.parent / f".{store.name}.lock"
        with cls._guard:
            if file not in cls._open or not file.exists():
                with access(str(store.parent), "creating the folder"):
                    store.parent.mkdir(parents=True, exist_ok=True)
                cls._open[file] = cls(file)
            return cls._open[file]

    @contextmanager
    def acquire(self, slot: int) -> Iterator[None]:
        """Hold one slot; waits while another process or thread holds it."""
        with self._released:
            self._released.wait_for(lambda: not self._held & {slot, ALL})
            self._held.add(slot)
        try:
            with access(str(self._file), "locking"):
                fcntl.lockf(self._descriptor, fcntl.LOCK_EX, 1, slot)
            with _waiting_on_error():
                yield
        finally:
            self._release(slot)

    @contextmanager
    def try_acquire(self, slot: int) -> Iterator[bool]:
        """Hold one slot, or `ALL` slots, if nobody else holds them; yields whether they were acquired."""
        with self._released:
            taken = not (self._held if slot == ALL else self._held & {slot, ALL}) and self._lock_now(slot)
            if taken:
                self._held.add(slot)
        try:
            with _waiting_on_error():
                yield taken
        finally:
            if taken:
                self._release(slot)

    def _lock_now(self, slot: int) -> bool:
        try:
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, *_bytes_of(slot))
        except (BlockingIOError, PermissionError):  # POSIX allows either for a locked slot
            return False
        return True

    def _release(self, slot: int) -> None:
        with self._released:
            fcntl.lockf(self._descriptor, fcntl.LOCK_UN, *_bytes_of(slot))
            self._held.discard(slot)
            self._released.notify_all()


def _bytes_of(slot: int) -> tuple[int, int]:
    """Length and first byte of a slot in the lock file; POSIX takes the length 0 as unlimited."""
    return (0, 0) if slot == ALL else (1, slot)


@contextmanager
def _waiting_on_error() -> Iterator[None]:
    """After an interrupt or an error, wait for pending writes, which still need the lock."""
    try:
        yield
    except BaseException:
        wait_for_requests()
        raise
