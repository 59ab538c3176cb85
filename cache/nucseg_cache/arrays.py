"""The arrays of a store: how they are made, opened, grown and written, the same for samples and embeddings."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec
from zarr.core.array_spec import ArrayConfigParams
from zarr.core.sync import sync  # zarr's stores are asynchronous only; this is how zarr itself calls them

from nucseg_cache.groups import read_documents, write_document
from nucseg_cache.location import delete_chunk

BLOCK_ROWS = 64
"""Rows in one chunk file of every small array: the least that one writer owns."""

_CHUNKS_ARE_WRITTEN: ArrayConfigParams = {"write_empty_chunks": True}
"""Also chunks of fill values only, so that a missing file is known to be missing. Not part of what lies on disk."""


def create_array(
    group: zarr.Group,
    name: str,
    shape: tuple[int, ...],
    dtype: Any,
    *,
    chunk_rows: int,
    compressor: BloscCodec | None = None,
) -> None:
    """Make one empty array of a store.

    The CRC keeps damaged bytes away from the decoders, which are written in C and trust what they get.
    """
    group.create_array(
        name,
        shape=(0, *shape),
        chunks=(chunk_rows, *shape),
        dtype=dtype,
        fill_value="" if dtype is str else 0,
        compressors=[compressor or BloscCodec(cname="zstd", clevel=3, shuffle="shuffle"), Crc32cCodec()],
        config=_CHUNKS_ARE_WRITTEN,
    )


def open_array(group: zarr.Group, name: str, document: dict[str, Any]) -> zarr.Array[Any]:
    """One array of a group, from its document as it was read."""
    array: zarr.Array[Any] = zarr.Array.from_dict(group.store_path / name, document)
    opened: zarr.Array[Any] = array.with_config(_CHUNKS_ARE_WRITTEN)
    return opened


def grow_array(group: zarr.Group, name: str, n_rows: int) -> zarr.Array[Any]:
    """Make room for that many rows and open the array anew; one that has the room stays as it is.

    Only the number of rows changes in the array's document. zarr's own `resize` writes all of it again, in the words
    of the zarr at hand, and a later zarr's words would break the seal.
    """
    document = read_documents(group, [name])[name]
    if document["shape"][0] < n_rows:
        document["shape"][0] = n_rows
        write_document(group, name, document)
    return open_array(group, name, document)


def read_together(arrays: Sequence[zarr.Array[Any]], where: int | slice) -> list[npt.NDArray[Any]]:
    """The same rows of several arrays, asked for all at once: on an object store one wait instead of many."""

    async def together() -> list[Any]:
        return await asyncio.gather(*(array.async_array.getitem(where) for array in arrays))

    return [np.asarray(found) for found in sync(together())]


def write_rows(array: zarr.Array[Any], first: int, values: npt.NDArray[Any]) -> None:
    """Write consecutive rows of an array whose chunk files hold a block of rows.

    Writing a part of a block reads the rest of it first. A block that cannot be decoded holds nothing that could be
    kept: it is taken away, and its other rows read as zeros, which no record vouches for.
    """
    where = slice(first, first + len(values))
    try:
        array[where] = values
    except (OSError, MemoryError):
        raise
    except Exception:  # whatever a codec makes of damaged bytes, it is damage
        damaged = [block for block in _blocks(where) if not _decodes(array, block)]
        if not damaged:
            raise
        for block in damaged:
            delete_chunk(array, block.start // BLOCK_ROWS)
        array[where] = values


def readable_rows(array: zarr.Array[Any], where: slice) -> npt.NDArray[Any]:
    """Rows of such an array of numbers; zeros, which vouch for nothing, where a block cannot be decoded."""
    try:
        return np.array(array[where])
    except (OSError, MemoryError):
        raise
    except Exception:  # as above; find out which block
        rows = np.zeros((where.stop - where.start, *array.shape[1:]), array.dtype)
    for block in _blocks(where):
        part = slice(max(block.start, where.start), min(block.stop, where.stop))
        with suppress(ValueError, RuntimeError, TypeError, EOFError):  # what the codecs raise
            rows[part.start - where.start : part.stop - where.start] = array[part]
    return rows


def runs(rows: Sequence[int]) -> Iterator[tuple[int, int]]:
    """First and last of each run of consecutive numbers; one write each instead of one a row."""
    first = 0
    for i in range(1, len(rows) + 1):
        if i == len(rows) or rows[i] != rows[i - 1] + 1:
            yield rows[first], rows[i - 1]
            first = i


def _blocks(where: slice) -> Iterator[slice]:
    """The whole blocks that rows lie in."""
    for first in range(where.start - where.start % BLOCK_ROWS, where.stop, BLOCK_ROWS):
        yield slice(first, first + BLOCK_ROWS)


def _decodes(array: zarr.Array[Any], block: slice) -> bool:
    try:
        array[block]
    except (OSError, MemoryError):
        raise
    except Exception:  # as above
        return False
    return True
