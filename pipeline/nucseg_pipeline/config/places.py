"""Where stores lie."""

import os

import platformdirs


def default_cache() -> str:
    """Where stores lie unless told otherwise: $NUCSEG_CACHE, or the user's cache directory."""
    return os.environ.get("NUCSEG_CACHE") or platformdirs.user_cache_dir("nucseg")


def store_location(cache: str, dataset: str) -> str:
    """The store of one data set inside a cache, which may be a folder or a URL."""
    return f"{cache.rstrip('/')}/{dataset}.zarr"
