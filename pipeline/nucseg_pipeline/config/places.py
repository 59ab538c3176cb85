"""Where stores are."""

import os

import platformdirs


def default_cache() -> str:
    """Folder or URL of the cache unless a configuration names another: $NUCSEG_CACHE, or the user's cache folder."""
    return os.environ.get("NUCSEG_CACHE") or platformdirs.user_cache_dir("nucseg")


def store_location(cache: str, dataset: str) -> str:
    """The store of one data set in a cache, which may be a folder or a URL."""
    return f"{cache.rstrip('/')}/{dataset}.zarr"
