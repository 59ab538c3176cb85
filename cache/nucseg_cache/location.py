"""Where a store lies: a local folder (`file://` too) or an fsspec URL; opening and creating groups there."""

from __future__ import annotations

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

from nucseg_cache.errors import CacheError, StoreAccessError, StoreDamaged, StoreFormatError, StoreNotFound, access
from nucseg_cache.object_store import ObjectStore

Mode = Literal["r", "r+"]

_REQUESTS = 32
"""Requests to an object store that are under way at once."""


def local_path(location: str | Path) -> Path | None:
    """The folder that a location means, or None where it is a URL of an object store.

    `file://` is a folder too: zarr's fsspec store, which would serve it otherwise, does not write atomically.
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
        StoreAccessError: it cannot be read.
    """
    with access(str(location), "opening"):
        try:
            folder = local_path(location)
            if folder is not None and not folder.is_dir():
                raise FileNotFoundError(folder)  # opening it for writing would make an empty folder
            # a consolidated copy of the metadata, where somebody made one, does not grow with the rows
            return zarr.open_group(zarr_store(location, mode), mode=mode, zarr_format=3, use_consolidated=False)
        except FileNotFoundError as error:
            raise StoreNotFound(
                f"there is no store at {location}. Run `nucseg embed` for that data set first, or name the cache "
                "that has it with --cache."
            ) from error
        except (OSError, MemoryError, CacheError):
            raise
        except ContainsArrayError as error:
            raise StoreFormatError(f"{location} is a zarr array, no store of nucseg; name another --cache") from error
        except Exception as error:  # zarr fails in many ways on edited metadata; each of them means the same
            raise StoreDamaged(
                f"zarr.json of {location} is unreadable ({error}). Restore it from a copy, or delete {location} and "
                "run `nucseg embed`."
            ) from error


def zarr_store(location: str | Path, mode: Mode) -> LocalStore | ObjectStore:
    """The zarr store of a location.

    Raises:
        StoreAccessError: the URL is of a kind that is not known or not installed.
    """
    folder = local_path(location)
    if folder is not None:
        return LocalStore(folder, read_only=mode == "r")
    try:
        return ObjectStore.at(str(location), read_only=mode == "r")
    except (ImportError, ValueError) as error:
        raise StoreAccessError(
            f"{location} cannot be opened: {error}. Install what its kind of URL needs (s3:// needs `pip install "
            "nucseg[s3]`), or name a folder with --cache."
        ) from error


def stored_bytes(array: zarr.Array[Any], rows: Iterable[int]) -> list[int]:
    """The size of each row's chunk file in bytes, 0 where there is none; for arrays of one chunk a row."""
    tail = "/".join("0" * (array.ndim - 1))
    folder = array.store.root / array.path if isinstance(array.store, LocalStore) else None
    if folder is not None:
        return [_file_bytes(f"{folder}/c/{row}/{tail}") for row in rows]
    return _object_bytes(array, [f"{array.path}/c/{row}/{tail}" for row in rows])


def delete_chunk(array: zarr.Array[Any], index: int) -> None:
    """Take away the chunk file at that place of the first axis."""
    tail = "/0" * (array.ndim - 1)
    sync(array.store.delete(f"{array.path}/c/{index}{tail}"))


def _file_bytes(file: str) -> int:
    try:
        return os.stat(file).st_size  # noqa: PTH116 - a fifth of the time of a Path, for every row of a store
    except (FileNotFoundError, NotADirectoryError):
        return 0


def _object_bytes(array: zarr.Array[Any], names: Sequence[str]) -> list[int]:
    """Asked for at once, within bounds: one after the other they would cost a round trip a row."""

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


def discard(folder: Path) -> None:
    """Take a half-made folder away.

    After an error zarr comes back while its other writes go on, and they would make the folder anew: they are waited
    for first.
    """

    async def writes_ended() -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.gather(*others, return_exceptions=True)

    sync(writes_ended())
    shutil.rmtree(folder, ignore_errors=True)
