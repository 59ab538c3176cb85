"""The store of a data set, opened by the data set's name."""

from __future__ import annotations

from nucseg.data.official_splits import is_same_dataset, stain_of
from nucseg.errors import ConfigError
from nucseg_cache import Store
from nucseg_pipeline.config import store_location


def open_store(cache: str, dataset: str) -> Store:
    """Open the store of a data set to read it.

    Args:
        cache: the folder or URL that holds it.
        dataset: name of the data set, with `@` and the stain where it is normalised.

    Raises:
        ConfigError: what lies under that name is of another data set, or in other colours.
        nucseg_cache.CacheError: see `Store.open`.
    """
    return of_dataset(Store.open(store_location(cache, dataset)), dataset)


def of_dataset(store: Store, dataset: str) -> Store:
    """The store itself, if it is one of this data set; ConfigError where it was copied or renamed from another."""
    stain = store.preparation.get("stain", "none")
    if is_same_dataset(store.dataset, dataset) and stain == stain_of(dataset):
        return store
    holds = store.dataset if stain == stain_of(store.dataset) else f"{store.dataset}, prepared with the stain {stain}"
    raise ConfigError(
        f"{store.location} holds {holds}, and not {dataset}: it was copied or renamed. Give it the name of what it "
        f"holds, or move it away and run `nucseg embed --dataset {dataset}`."
    )
