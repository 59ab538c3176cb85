"""Where something is fetched before it gets its name: a hidden folder beside it that one process at a time may use."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from nucseg_pipeline.fetching.errors import FetchError
from nucseg_pipeline.files.locks import missing_folders, remove_empty

_GIB = 1 << 30

_SYNCING = 16
"""Threads: a file system brings many files to the disk at once as fast as a few."""


@contextlib.contextmanager
def workplace(target: Path) -> Iterator[Path]:
    """The folder in which `target` is fetched, held while inside; what is empty then is taken away.

    It lies beside the target, so that giving the target its name moves nothing. The lock is the kernel's and ends with
    the process, however it ends. Raises FetchError where another process holds it, or it cannot be made.
    """
    folder = _folder(target)
    made = missing_folders(folder.parent)
    descriptor = _opened(folder)
    try:
        _lock(descriptor, folder, target)
        yield folder
    finally:
        os.close(descriptor)
        remove_empty([folder, *made])


def tidy(target: Path) -> None:
    """Delete what a fetch has left that was killed after it gave the target its name."""
    if _folder(target).is_dir():
        with contextlib.suppress(FetchError), workplace(target) as folder:
            shutil.rmtree(folder)


def _folder(target: Path) -> Path:
    return target.parent / f".{target.name}.part"


def _opened(folder: Path) -> int:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise FetchError(
            f"{folder} cannot be made: {error.strerror}. Data sets go to $NUCSEG_DATA or ./data, weights to "
            "$NUCSEG_WEIGHTS or the user's cache folder: set it to a folder that can be written."
        ) from None


def _lock(descriptor: int, folder: Path, target: Path) -> None:
    busy = FetchError(f"Another process is fetching {target}. Wait for it; then `nucseg fetch` says what is there.")
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise busy from None
    except OSError:
        return  # a file system without locks: the user is trusted to fetch once at a time
    if not folder.exists() or not os.path.samestat(os.fstat(descriptor), folder.stat()):
        raise busy  # who held it has just finished, and took the folder away


def check_space(folder: Path, n_bytes: int, what: str) -> None:
    """Raise FetchError if less than `n_bytes` are free where `folder` lies."""
    free = shutil.disk_usage(folder).free
    if n_bytes > free:
        raise FetchError(
            f"{what} needs {n_bytes / _GIB:.2f} GiB, and {free / _GIB:.2f} GiB are free in {folder.parent}. Free "
            "some space there, or choose another place: $NUCSEG_DATA for data sets, $NUCSEG_WEIGHTS for weights."
        )


def place(made: Path, target: Path, note: Mapping[str, object]) -> None:
    """Give what was made and checked its name, and note beside it what it is; never in place of something else."""
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise FetchError(f"{target} has come into being meanwhile, and is left as it is. Move it away and fetch again.")
    try:
        made.rename(target)
        _sync_folder(target.parent)
    except OSError as error:
        raise FetchError(f"{target} cannot be made: {error.strerror}. Move away what is there.") from None
    write_note(target, note)


def write_note(target: Path, note: Mapping[str, object]) -> None:
    """Note beside the target what it is and how that was checked."""
    write_json(_note_file(target), note)


def read_note(target: Path) -> dict[str, object]:
    """What was noted when the target was fetched; empty where nothing was, or it cannot be read."""
    return read_json(_note_file(target))


def _note_file(target: Path) -> Path:
    return target.parent / f".{target.name}.fetched.json"


def read_json(file: Path) -> dict[str, object]:
    """A JSON object in a file; an empty one where there is no file, or something else in it."""
    try:
        content = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def write_json(file: Path, content: Mapping[str, object]) -> None:
    """Write a JSON object whole, or not at all."""
    temporary = file.with_name(f"{file.name}.new")
    with temporary.open("w") as stream:
        json.dump(dict(content), stream, indent=1)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(file)


def sync_files(folder: Path) -> None:
    """Bring all files in a folder to the disk."""
    files = [Path(root) / name for root, _, names in os.walk(folder) for name in names]
    with ThreadPoolExecutor(_SYNCING) as pool:
        list(pool.map(sync_file, files))


def sync_file(file: Path) -> None:
    """Bring a file to the disk."""
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    """Bring a rename to the disk; some file systems cannot, and then it comes there when it comes."""
    with contextlib.suppress(OSError):
        sync_file(folder)
