"""Create a store completely or not at all."""

import shutil
from collections.abc import Callable
from pathlib import Path

import zarr
from zarr.core.common import JSON
from zarr.core.sync import sync

from nucseg_cache.errors import StoreExists, StoreFormatError, StoreNotFound, minimal_embed_command
from nucseg_cache.groups import leftovers_beside, temporary_name
from nucseg_cache.location import discard, root_of, zarr_store
from nucseg_cache.locks import SAMPLES, StoreLocks
from nucseg_cache.seal import is_sealed

_UNDER_CONSTRUCTION: dict[str, JSON] = {"complete": False}
"""Root attributes on an object store until the seal is written; they identify an unfinished store."""

_NOT_EMPTY = (
    "{0} already exists, and a store is only created in an empty place. Choose another --cache; or, if it is the rest "
    "of a broken store, delete {0} and run `{1}`."
)


def create_in_folder(folder: Path, build: Callable[[zarr.Group], None]) -> None:
    """Build the store under a temporary name, then rename it.

    Raises:
        StoreExists: the folder exists and is not empty.
    """
    with StoreLocks.of(folder).acquire(SAMPLES):
        for leftover in leftovers_beside(folder):
            shutil.rmtree(leftover, ignore_errors=True)
        is_empty_folder = folder.is_dir() and not any(folder.iterdir())  # a rename replaces it
        if folder.exists() and not is_empty_folder:
            raise StoreExists(_NOT_EMPTY.format(folder, minimal_embed_command(str(folder))))
        temporary = folder.parent / temporary_name(folder.name)
        try:
            build(zarr.open_group(zarr_store(temporary, "r+"), mode="w", zarr_format=3))
            temporary.rename(folder)
        finally:
            discard(temporary)


def create_on_object_store(location: str, build: Callable[[zarr.Group], None]) -> None:
    """Build the store in place. The seal is written last, and without it the store does not count as existing.

    Only the remains of an interrupted creation are overwritten.

    Raises:
        StoreExists: something else is there.
    """
    store = zarr_store(location, "r+")
    if not sync(store.is_empty("")) and not _is_under_construction(location):
        raise StoreExists(_NOT_EMPTY.format(location, minimal_embed_command(str(location))))
    attributes = dict(_UNDER_CONSTRUCTION)  # zarr keeps and modifies the dictionary
    build(zarr.open_group(store, mode="w", zarr_format=3, attributes=attributes))


def _is_under_construction(location: str) -> bool:
    try:
        root = root_of(location, "r")
    except (StoreNotFound, StoreFormatError):
        return False
    return not is_sealed(root) and dict(root.attrs) == _UNDER_CONSTRUCTION
