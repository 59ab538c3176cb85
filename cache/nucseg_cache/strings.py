"""Texts of a store, decoded here wherever it lies: zarr makes room for as many as a damaged file says there are."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import zarr
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync  # zarr's stores are asynchronous only; this is how zarr itself calls them

from nucseg_cache.chunk_files import checked_frame, kind_of, decode_strings
from nucseg_cache.location import delete_chunk


def is_string_array(array: zarr.Array[Any]) -> bool:
    """Whether an array holds texts, laid out as this package does."""
    return kind_of(array) == "strings"


async def read_strings(array: zarr.Array[Any], where: slice) -> npt.NDArray[Any]:
    """Consecutive rows of an array of texts, as far as it has them; those of a missing file are empty.

    Raises:
        ValueError, RuntimeError: a chunk file is damaged.
    """
    n_rows = array.chunks[0]
    stop = min(where.stop, array.shape[0])
    begin = where.start - where.start % n_rows
    chunks = [await _chunk(array, first // n_rows) for first in range(begin, stop, n_rows)]
    texts = np.concatenate(chunks) if chunks else np.empty(0, object)
    return texts[where.start - begin : max(stop - begin, 0)]


def delete_undecodable(array: zarr.Array[Any], where: slice) -> None:
    """Take away the chunk files with some of the rows that cannot be decoded: writing a part of one reads the rest."""
    n_rows = array.chunks[0]
    for index in range(where.start // n_rows, -(-where.stop // n_rows)):
        try:
            sync(_chunk(array, index))
        except (ValueError, RuntimeError):  # what the codecs raise
            delete_chunk(array, index)


async def _chunk(array: zarr.Array[Any], index: int) -> npt.NDArray[Any]:
    content = await array.store.get(f"{array.path}/c/{index}", prototype=default_buffer_prototype())
    if content is None:
        return np.full(array.chunks[0], "", object)
    return decode_strings(checked_frame(np.frombuffer(content.to_bytes(), np.uint8)), array.chunks[0])
