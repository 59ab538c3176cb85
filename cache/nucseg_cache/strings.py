"""Read arrays of strings without zarr's decoder, which allocates as many strings as a damaged file claims."""

from typing import Any

import numpy as np
import numpy.typing as npt
import zarr
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync  # zarr's stores are asynchronous only; this is how zarr itself calls them

from nucseg_cache.chunk_files import checked_frame, decode_strings, kind_of
from nucseg_cache.location import delete_chunk


def is_string_array(array: zarr.Array[Any]) -> bool:
    """Whether an array holds strings in this package's layout."""
    return kind_of(array) == "strings"


async def read_strings(array: zarr.Array[Any], where: slice) -> npt.NDArray[Any]:
    """Read consecutive rows of an array of strings, clipped to its length; rows of a missing file are empty.

    Raises:
        ValueError, RuntimeError: a chunk file is damaged.
    """
    n_rows = array.chunks[0]
    stop = min(where.stop, array.shape[0])
    begin = where.start - where.start % n_rows
    chunks = [await _chunk(array, first // n_rows) for first in range(begin, stop, n_rows)]
    strings = np.concatenate(chunks) if chunks else np.empty(0, object)
    return strings[where.start - begin : max(stop - begin, 0)]


def delete_undecodable(array: zarr.Array[Any], where: slice) -> None:
    """Delete chunk files of the rows that cannot be decoded, because writing part of a file reads the rest of it."""
    n_rows = array.chunks[0]
    for index in range(where.start // n_rows, -(-where.stop // n_rows)):
        try:
            sync(_chunk(array, index))
        except (ValueError, RuntimeError):  # raised on damage
            delete_chunk(array, index)


async def _chunk(array: zarr.Array[Any], index: int) -> npt.NDArray[Any]:
    content = await array.store.get(f"{array.path}/c/{index}", prototype=default_buffer_prototype())
    if content is None:
        return np.full(array.chunks[0], "", object)
    return decode_strings(checked_frame(np.frombuffer(content.to_bytes(), np.uint8)), array.chunks[0])
