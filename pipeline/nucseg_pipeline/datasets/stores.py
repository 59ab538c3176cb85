"""Open the store of a data set by the data set's name."""

from __future__ import annotations

from pathlib import Path

from nucseg.data.official_splits import is_same_dataset, stain_of
from nucseg.errors import ConfigError, suggestion
from nucseg_cache import Store, StoreNotFound
from nucseg_cache.errors import minimal_embed_command
from nucseg_pipeline.config import store_location
from nucseg_pipeline.datasets.cached import store_names


def open_store(cache: str | Path, dataset: str, *, command: str = "") -> Store:
    """Open the store of a data set to read it.

    Args:
        cache: the folder or URL that holds it.
        dataset: name of the data set, followed by `@` and the stain if its images are normalised.
        command: what makes the store, for the message; by default, `embed` with the encoder left to the user.

    Raises:
        ConfigError: the store of that name holds another data set, or images of another stain normalisation.
        nucseg_cache.CacheError: see `Store.open`.
    """
    location = store_location(str(cache), dataset)
    try:
        return of_dataset(Store.open(location), dataset)
    except StoreNotFound as missing:
        near = suggestion(dataset, store_names(str(cache)))
        raise StoreNotFound(
            f"There is no store at {location}. {near}{' ' if near else ''}Make it with "
            f"`{command or minimal_embed_command(location)}`, or name the right cache (--cache)."
        ) from missing


def of_dataset(store: Store, dataset: str) -> Store:
    """The store itself if it holds this data set; ConfigError if it was copied or renamed from another one."""
    stain = store.preparation.get("stain", "none")
    if is_same_dataset(store.dataset, dataset) and stain == stain_of(dataset):
        return store
    holds = store.dataset if stain == stain_of(store.dataset) else f"{store.dataset}, prepared with the stain {stain}"
    raise ConfigError(
        f"{store.location} holds {holds}, not {dataset}: it was copied or renamed. Rename it to match its content, or "
        f"move it away and run `{minimal_embed_command(store_location(store.location.rpartition('/')[0], dataset))}`."
    )
