"""The hidden folder in which a file or data set is prepared before it is moved into place, and the note beside it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from nucseg_pipeline.fetch.errors import FetchError
from nucseg_pipeline.files.locks import locked, missing_folders, remove_empty

_GIB = 1 << 30
_SYNC_THREADS = 16


@contextmanager
def staging_folder(target: Path) -> Iterator[Path]:
    """Lock the staging folder of `target` for one process; it is removed afterwards if it is empty.

    It is beside the target, so that moving the result into place is a rename. The lock is the kernel's and ends with
    the process. Raises FetchError if another process holds the lock or the folder cannot be created.
    """
    folder = _staging_path(target)
    created = [folder, *missing_folders(folder.parent)]
    busy = FetchError(f"Another process is fetching {target}. Wait for it; `nucseg fetch` then shows the result.")
    with ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            inode = folder.stat().st_ino
            stack.enter_context(locked(folder, busy))
        except OSError as error:
            raise FetchError(
                f"{folder} cannot be created: {error.strerror}. Data sets go to $NUCSEG_DATA or ./data, weights to "
                "$NUCSEG_WEIGHTS or the user's cache folder: set the variable to a folder that you can write to."
            ) from None
        if not folder.exists() or folder.stat().st_ino != inode:
            raise busy  # the process that held the lock has just finished and removed the folder
        try:
            yield folder
        finally:
            remove_empty(created)


def clean_up(target: Path) -> None:
    """Delete the staging folder that a killed process left behind, unless another process is using it."""
    if _staging_path(target).is_dir():
        with suppress(FetchError), staging_folder(target) as folder:
            shutil.rmtree(folder)


def check_space(folder: Path, n_bytes: int, what: str) -> None:
    """Raise FetchError if less than `n_bytes` are free on the disk of `folder`."""
    free = shutil.disk_usage(folder).free
    if n_bytes > free:
        raise FetchError(
            f"{what} needs {n_bytes / _GIB:.2f} GiB, but only {free / _GIB:.2f} GiB are free in {folder.parent}. Free "
            "some space there, or choose another folder: $NUCSEG_DATA for data sets, $NUCSEG_WEIGHTS for weights."
        )


def move_into_place(staged: Path, target: Path, note: Mapping[str, object]) -> None:
    """Rename a verified file or folder to `target` and write the note; never replaces anything but an empty folder."""
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise FetchError(f"{target} was created by something else in the meantime. Move it away and fetch again.")
    try:
        _sync(staged)
        staged.rename(target)
        with suppress(OSError):  # some file systems cannot sync a folder
            _fsync(target.parent)
    except OSError as error:
        raise FetchError(f"{target} cannot be created: {error.strerror}. Check the folder and fetch again.") from None
    write_note(target, note)


def write_note(target: Path, note: Mapping[str, object]) -> None:
    """Record beside the target where it came from and what was verified. Raises FetchError if that is impossible."""
    try:
        _note_path(target).write_text(json.dumps(dict(note), indent=1))
    except OSError as error:
        raise FetchError(
            f"{target} is complete, but {_note_path(target)} cannot be written: {error.strerror}."
        ) from None


def read_note(target: Path) -> dict[str, object]:
    """The note that was written when the target was fetched; empty if there is none, or it cannot be read."""
    try:
        content = json.loads(_note_path(target).read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _sync(path: Path) -> None:
    """Write a file, or all files in a folder, through to the disk, so that a power failure cannot truncate them."""
    files = [Path(root) / name for root, _, names in os.walk(path) for name in names] if path.is_dir() else [path]
    with ThreadPoolExecutor(_SYNC_THREADS) as pool:
        list(pool.map(_fsync, files))


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _staging_path(target: Path) -> Path:
    return target.parent / f".{target.name}.part"


def _note_path(target: Path) -> Path:
    return target.parent / f".{target.name}.fetched.json"
