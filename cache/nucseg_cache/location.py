"""The location of a store: a local folder (also as `file://`) or the fsspec URL of an object store."""

import asyncio
import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote, urlparse

import zarr
from zarr.core.sync import sync  # zarr's stores are asynchronous only; this is how zarr itself calls them
from zarr.errors import ContainsArrayError
from zarr.storage import LocalStore

from nucseg_cache.errors import (
    CacheError,
    StoreAccessError,
    StoreDamaged,
    StoreFormatError,
    StoreNotFound,
    access,
    minimal_embed_command,
)
from nucseg_cache.object_store import ObjectStore

Mode = Literal["r", "r+"]

_REQUESTS = 32
"""The most concurrent requests to an object store."""


def local_path(location: str | Path) -> Path | None:
    """The folder of a location; None for the URL of an object store.

    `file://` counts as a folder, because zarr's fsspec store would not write atomically there.
    """
    if isinstance(location, Path):
        return location
    if location.startswith("file://"):
        return Path(unquote(urlparse(location).path))
    return None if "://" in location else Path(location)


def root_of(location: str | Path, mode: Mode) -> zarr.Group:
    """Open the root group of a store.

    Raises:
        StoreNotFound: there is no zarr group.
        StoreFormatError: there is a zarr array instead.
        StoreDamaged: its zarr.json is unreadable.
        StoreAccessError: it cannot be read.
    """
    with access(str(location), "opening"):
        try:
            folder = local_path(location)
            if folder is not None and not folder.is_dir():
                raise FileNotFoundError(folder)  # opening it for writing would create an empty folder
            # consolidated metadata, if somebody created it, would not be updated when rows are added
            return zarr.open_group(zarr_store(location, mode), mode=mode, zarr_format=3, use_consolidated=False)
        except FileNotFoundError as error:
            raise StoreNotFound(
                f"there is no store at {location}. Make it with `{minimal_embed_command(str(location))}`, or name the "
                "right cache (--cache)."
            ) from error
        except (OSError, MemoryError, CacheError):
            raise
        except ContainsArrayError as error:
            raise StoreFormatError(
                f"{location} is a zarr array, not a store of nucseg; name another --cache"
            ) from error
        except Exception as error:  # zarr raises errors of many types on edited metadata
            raise StoreDamaged(
                f"zarr.json of {location} is unreadable ({error}). Restore it from a copy, or delete {location} and "
                f"run `{minimal_embed_command(str(location))}`."
            ) from error


def zarr_store(location: str | Path, mode: Mode) -> LocalStore | ObjectStore:
    """The zarr store of a location.

    Raises:
        StoreAccessError: the URL's protocol is unknown or not installed.
    """
    folder = local_path(location)
    if folder is not None:
        return LocalStore(folder, read_only=mode == "r")
    try:
        return ObjectStore.at(str(location), read_only=mode == "r")
    except (ImportError, ValueError) as error:
        raise StoreAccessError(
            f"{location} cannot be opened: {error}. Install what its protocol needs (for s3:// `pip install "
            "nucseg[s3]`), or name a folder with --cache."
        ) from error


def stored_bytes(array: zarr.Array[Any], rows: Iterable[int]) -> list[int]:
    """The size of each row's chunk file in bytes, 0 for a missing one; for arrays with one row per chunk."""
    tail = "/".join("0" * (array.ndim - 1))
    folder = array.store.root / array.path if isinstance(array.store, LocalStore) else None
    if folder is not None:
        return [_file_bytes(f"{folder}/c/{row}/{tail}") for row in rows]
    return _object_bytes(array, [f"{array.path}/c/{row}/{tail}" for row in rows])


def delete_chunk(array: zarr.Array[Any], index: int) -> None:
    """Delete the chunk file with that index along the first axis."""
    tail = "/0" * (array.ndim - 1)
    sync(array.store.delete(f"{array.path}/c/{index}{tail}"))


def _file_bytes(file: str) -> int:
    try:
        return os.stat(file).st_size  # noqa: PTH116 - called for every row; takes a fifth of the time of a Path
    except (FileNotFoundError, NotADirectoryError):
        return 0


def _object_bytes(array: zarr.Array[Any], names: Sequence[str]) -> list[int]:
    """Sizes of objects, requested concurrently to avoid one round trip per row."""

    async def sizes() -> list[int]:
        bound = asyncio.Semaphore(_REQUESTS)

        async def size(name: str) -> int:
            async with bound:
                try:
                    return int(await array.store.getsize(name))
                except FileNotFoundError:
                    return 0

        return await asyncio.gather(*map(size, names))

    return sync(sizes())


def wait_for_requests(timeout_s: float | None = 20.0) -> None:
    """Wait until all pending requests to a store have ended: after an interrupt or an error, zarr goes on writing.

    The default wait is bounded because Slurm kills a job 30 seconds after announcing it.
    """

    async def all_ended() -> None:
        pending = asyncio.all_tasks() - {asyncio.current_task()}
        if pending:
            await asyncio.wait(pending, timeout=timeout_s)

    sync(all_ended())


def discard(folder: Path) -> None:
    """Delete an unfinished folder, once pending writes, which would create it again, have ended."""
    wait_for_requests(timeout_s=None)
    shutil.rmtree(folder, ignore_errors=True)
