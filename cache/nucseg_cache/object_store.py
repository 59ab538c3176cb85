"""Object stores behind an fsspec URL: listings are not cached, and failures of a protocol's library are OSErrors."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

from zarr.storage import FsspecStore

from nucseg_cache.errors import Unreachable

_OPTIONS: dict[str, dict[str, Any]] = {
    # reads each object in one request: reading in parts would request its size first and double the requests
    "s3": {"max_concurrency": 1}
}


@contextmanager
def _library_errors_as_unreachable() -> Iterator[None]:
    """Raise errors of a protocol's library as Unreachable; errors of Python and zarr pass unchanged."""
    try:
        yield
    except Exception as error:
        if type(error).__module__.partition(".")[0] in ("builtins", "zarr") or isinstance(error, OSError):
            raise
        raise Unreachable(str(error)) from error


def _guarded(name: str) -> Callable[..., Coroutine[Any, Any, Any]]:
    async def guarded(self: FsspecStore, *args: Any, **options: Any) -> Any:
        with _library_errors_as_unreachable():
            return await getattr(FsspecStore, name)(self, *args, **options)

    return guarded


class ObjectStore(FsspecStore):
    """zarr's fsspec store with every access failure raised as an OSError.

    fsspec passes on the errors of each protocol's library, such as botocore's for missing credentials. The code that
    reads a store treats OSErrors as access failures and all other errors as damage.
    """

    url: str

    @classmethod
    def at(cls, url: str, *, read_only: bool) -> ObjectStore:
        """The store of a URL; raises ImportError or ValueError if its protocol is not installed or not known."""
        protocol = url.partition("://")[0]
        # another process may write after a listing was cached
        options = {"use_listings_cache": False, **_OPTIONS.get(protocol, {})}
        store: ObjectStore = cls.from_url(url, storage_options=options, read_only=read_only)  # type: ignore[assignment]
        store.url = url
        return store

    get = _guarded("get")
    set = _guarded("set")
    delete = _guarded("delete")
    delete_dir = _guarded("delete_dir")
    getsize = _guarded("getsize")

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:  # noqa: D102 - as in zarr
        with _library_errors_as_unreachable():
            async for name in super().list_dir(prefix):
                yield name

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:  # noqa: D102
        with _library_errors_as_unreachable():
            async for name in super().list_prefix(prefix):
                yield name
