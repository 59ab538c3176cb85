"""What a cache holds of a data set, found without reading a sample or an embedding."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from nucseg.data.conversion import conversion_of
from nucseg_cache import CacheError, Key, Store, StoreNotFound
from nucseg_cache.location import local_path
from nucseg_pipeline.config import store_location


@dataclass(frozen=True)
class CachedDataset:
    """The store of a data set."""

    location: str
    source: str = ""
    """The folder that it was made from."""
    convert: str = "none"
    """How its images were read."""
    n_images: int = 0
    n_embeddings: int = 0
    """Of all keys and views together."""
    problem: str = ""
    """Why it cannot be read; empty if it can."""


def cached_dataset(cache: str, name: str) -> CachedDataset | None:
    """The store of that name in a cache, damaged or not; None if there is none."""
    location = store_location(cache, name)
    known = CachedDataset(location)
    try:
        store = Store.open(location)
        known = replace(known, source=store.source, convert=conversion_of(store.preparation))
        n_embeddings = sum(len(store.embeddings(key, view).embedded_rows()) for key, view in _views(store))
        return replace(known, n_images=sum(row.present for row in store.table), n_embeddings=n_embeddings)
    except StoreNotFound:
        folder = local_path(location)
        if folder is None or not folder.is_dir():
            return None
        return replace(known, problem=f"{location} is a folder, but no store: it has no zarr.json. Move it away.")
    except CacheError as error:
        return replace(known, problem=str(error))


def store_names(cache: str) -> tuple[str, ...]:
    """Sorted names of the stores in a local cache; none if it is a URL or cannot be listed."""
    folder = local_path(cache)
    try:
        found = [child for child in folder.iterdir() if child.is_dir()] if folder else []
    except OSError:
        return ()
    return tuple(sorted(child.stem for child in found if child.suffix == ".zarr" and not child.name.startswith(".")))


def _views(store: Store) -> Iterator[tuple[Key, str]]:
    return ((key, view) for key in store.keys() for view in store.views(key))  # noqa: SIM118 - a method of Store
