"""How a store comes into being: whole, or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import zarr
from zarr.core.common import JSON
from zarr.core.sync import sync

from nucseg_cache.errors import StoreExists, StoreFormatError, StoreNotFound
from nucseg_cache.groups import leftovers_beside, temporary_name
from nucseg_cache.location import discard, root_of, zarr_store
from nucseg_cache.locks import SAMPLES, StoreLocks
from nucseg_cache.seal import is_sealed

_UNDER_CONSTRUCTION: dict[str, JSON] = {"complete": False}
"""The attributes of a store on an object store until its seal is written, so that it is known for one of ours."""

_SOMETHING_THERE = (
    "there is something at {0} already, and a store is created where nothing is. Name another --cache; or, if it is "
    "what is left of a store, delete {0} and run `nucseg embed`."
)


def create_in_folder(folder: Path, build: Callable[[zarr.Group], None]) -> None:
    """Grow the store under a temporary name, then rename it.

    Raises:
        StoreExists: something is there.
    """
    with StoreLocks.of(folder).acquire(SAMPLES):
        for leftover in leftovers_beside(folder):
            shutil.rmtree(leftover, ignore_errors=True)
        is_empty_folder = folder.is_dir() and not any(folder.iterdir())  # a rename takes its place
        if folder.exists() and not is_empty_folder:
            raise StoreExists(_SOMETHING_THERE.format(folder))
        temporary = folder.parent / temporary_name(folder.name)
        try:
            build(zarr.open_group(zarr_store(temporary, "r+"), mode="w", zarr_format=3))
            temporary.rename(folder)
        finally:
            discard(temporary)


def create_on_object_store(location: str, build: Callable[[zarr.Group], None]) -> None:
    """Grow the store in place: without the seal, which comes last, it does not count as there.

    What a stopped creation left is made anew. Nothing else is ever written over.

    Raises:
        StoreExists: something is there.
    """
    store = zarr_store(location, "r+")
    if not sync(store.is_empty("")) and not _is_under_construction(location):
        raise StoreExists(_SOMETHING_THERE.format(location))
    attributes = dict(_UNDER_CONSTRUCTION)  # zarr keeps and changes what it is given
    build(zarr.open_group(store, mode="w", zarr_format=3, attributes=attributes))


def _is_under_construction(location: str) -> bool:
    try:
        root = root_of(location, "r")
    except (StoreNotFound, StoreFormatError):
        return False
    return not is_sealed(root) and dict(root.attrs) == _UNDER_CONSTRUCTION
