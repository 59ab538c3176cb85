"""Read rows of a store's arrays: directly from chunk files in a folder, through zarr elsewhere."""

import os
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import zarr

from nucseg_cache.chunk_files import ChunkFiles
from nucseg_cache.groups import run_all
from nucseg_cache.strings import is_string_array, read_strings

MAX_THREADS = 4
"""The most rows read in parallel; file access and decoding release the interpreter lock."""

T = TypeVar("T")
R = TypeVar("R")


class Reader:
    """Reads rows of arrays of one group, whose seal was checked."""

    def __init__(self, arrays: Mapping[str, zarr.Array[Any]]) -> None:
        self._arrays = dict(arrays)
        found = {name: ChunkFiles.of(array) for name, array in arrays.items()}
        self._files = {name: files for name, files in found.items() if files is not None}

    def row_into(self, row: int, out: Mapping[str, npt.NDArray[Any]]) -> None:
        """Read one row of several arrays of numbers; codecs raise various errors on damaged bytes.

        `out` has a contiguous array of the row's shape and type by the array's name.
        """
        if out.keys() <= self._files.keys():
            for name, target in out.items():
                self._files[name].read_row(row, target)
            return
        for target, found in zip(out.values(), self._through_zarr(tuple(out), row), strict=True):
            target[...] = found

    def columns(self, names: Sequence[str], where: slice) -> list[npt.NDArray[Any]]:
        """Read the same rows of several arrays; raises as `row_into` does."""
        if set(names) <= self._files.keys():
            return [self._files[name].read_rows(where) for name in names]
        return self._through_zarr(names, where)

    def rows_or_zeros(self, name: str, where: slice) -> npt.NDArray[Any]:
        """Read rows of an array of numbers; zeros, which match no record, if a chunk file cannot be decoded."""
        array = self._arrays[name]
        first, stop = where.start, min(where.stop, array.shape[0])
        try:
            return np.array(self.columns([name], slice(first, stop))[0])
        except (OSError, MemoryError):
            raise
        except Exception:  # damage raises errors of many types; find out which file is damaged
            rows = np.zeros((stop - first, *array.shape[1:]), array.dtype)
        for chunk in chunk_rows(array, slice(first, stop)):
            part = slice(max(chunk.start, first), min(chunk.stop, stop))
            with suppress(ValueError, RuntimeError, TypeError, EOFError):  # raised on damage
                rows[part.start - first : part.stop - first] = self.columns([name], part)[0]
        return rows

    def undecodable(self, name: str, n_rows: int) -> list[slice]:
        """Find the chunk files among the first `n_rows` rows that cannot be decoded; one slice of rows for each."""

        def is_decodable(where: slice) -> bool:
            try:
                self.columns([name], where)
            except (OSError, MemoryError):
                raise
            except Exception:  # codecs raise errors of many types on damaged bytes
                return False
            return True

        return [where for where in chunk_rows(self._arrays[name], slice(0, n_rows)) if not is_decodable(where)]

    def _through_zarr(self, names: Sequence[str], where: int | slice) -> list[npt.NDArray[Any]]:
        """Read several arrays concurrently: on an object store this takes one round trip instead of many."""
        return [np.asarray(found) for found in run_all(_request(self._arrays[name], where) for name in names)]


def _request(array: zarr.Array[Any], where: int | slice) -> Coroutine[Any, Any, Any]:
    if isinstance(where, slice) and is_string_array(array):
        return read_strings(array, where)
    return array.async_array.getitem(where)


def chunk_rows(array: zarr.Array[Any], where: slice) -> list[slice]:
    """The rows of each chunk file that contains some of the given rows."""
    n_rows = array.chunks[0]
    return [slice(first, first + n_rows) for first in range(where.start - where.start % n_rows, where.stop, n_rows)]


def parallel_map(read: Callable[[T], R], items: Sequence[T]) -> list[R]:
    """Apply `read` to each item in up to `MAX_THREADS` threads; results are in the order of the items."""
    n_threads = min(MAX_THREADS, os.cpu_count() or 1, len(items))
    if n_threads < 2:
        return [read(item) for item in items]
    with ThreadPoolExecutor(n_threads) as pool:
        return list(pool.map(read, items))
