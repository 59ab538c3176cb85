"""Open the store of a data set by the data set's name."""

from __future__ import annotations

from nucseg.data.official_splits import is_same_dataset, stain_of
from nucseg.errors import ConfigError
from nucseg_cache import Store
from nucseg_pipeline.config import store_location


def open_store(cache: str, dataset: str) -> Store:
    """Open the store of a data set to read it.

    Args:
        cache: the folder or URL that holds it.
        dataset: name of the data set, followed by `@` and the stain if its images are normalised.

    Raises:
        ConfigError: the store of that name holds another data set, or images of another stain normalisation.
        nucseg_cache.CacheError: see `Store.open`.
    """
    return of_dataset(Store.open(store_location(cache, dataset)), dataset)


def of_dataset(store: Store, dataset: str) -> Store:
    """The store itself if it holds this data set; ConfigError if it was copied or renamed from another one."""
    stain = store.preparation.get("stain", "none")
    if is_same_dataset(store.dataset, dataset) and stain == stain_of(dataset):
        return store
    holds = store.dataset if stain == stain_of(store.dataset) else f"{store.dataset}, prepared with the stain {stain}"
    raise ConfigError(
        f"{store.location} holds {holds}, not {dataset}: it was copied or renamed. Rename it to match its content, or "
        f"move it away and run `nucseg embed --dataset {dataset}`."
    )
