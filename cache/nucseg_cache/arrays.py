"""The arrays of a store: how they are made, opened, grown and written, the same for samples and embeddings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy.typing as npt
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec
from zarr.core.array_spec import ArrayConfigParams

from nucseg_cache.groups import read_documents, run_all, write_documents
from nucseg_cache.location import delete_chunk
from nucseg_cache.reading import chunk_rows
from nucseg_cache.strings import delete_undecodable, is_string_array

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


def grow_arrays(group: zarr.Group, names: Sequence[str], n_rows: int) -> dict[str, zarr.Array[Any]]:
    """Make room for that many rows and open the arrays anew; those that have the room stay as they are.

    Only the number of rows changes in an array's document. zarr's own `resize` writes all of it again, in the words
    of the zarr at hand, and a later zarr's words would break the seal.
    """
    documents = read_documents(group, names)
    short = {name: document for name, document in documents.items() if document["shape"][0] < n_rows}
    for document in short.values():
        document["shape"][0] = n_rows
    write_documents(group, short)
    return {name: open_array(group, name, document) for name, document in documents.items()}


def write_columns(first: int, columns: Sequence[tuple[zarr.Array[Any], npt.NDArray[Any]]]) -> None:
    """As `write_rows`, for several arrays at once and in no order."""
    n_rows = len(columns[0][1])
    for array, _ in columns:
        if is_string_array(array):
            delete_undecodable(array, slice(first, first + n_rows))
    written = run_all(
        (array.async_array.setitem(slice(first, first + n_rows), values) for array, values in columns),
        tolerated=lambda error: not isinstance(error, (OSError, MemoryError)),
    )
    for (array, values), outcome in zip(columns, written, strict=True):
        if isinstance(outcome, Exception):
            write_rows(array, first, values)


def write_rows(array: zarr.Array[Any], first: int, values: npt.NDArray[Any]) -> None:
    """Write consecutive rows.

    Writing a part of a chunk file reads the rest of it first. One that cannot be decoded holds nothing that could be
    kept: it is taken away, and its other rows read as zeros, which no record vouches for.
    """
    where = slice(first, first + len(values))
    if is_string_array(array):
        delete_undecodable(array, where)
    try:
        array[where] = values
    except (OSError, MemoryError):
        raise
    except Exception:  # whatever a codec makes of damaged bytes, it is damage
        damaged = [chunk for chunk in chunk_rows(array, where) if not _decodes(array, chunk)]
        if not damaged:
            raise
        for chunk in damaged:
            delete_chunk(array, chunk.start // array.chunks[0])
        array[where] = values


def runs(rows: Sequence[int]) -> Iterator[tuple[int, int]]:
    """First and last of each run of consecutive numbers; one write each instead of one a row."""
    first = 0
    for i in range(1, len(rows) + 1):
        if i == len(rows) or rows[i] != rows[i - 1] + 1:
            yield rows[first], rows[i - 1]
            first = i


def _decodes(array: zarr.Array[Any], rows: slice) -> bool:
    try:
        array[rows]
    except (OSError, MemoryError):
        raise
    except Exception:  # as above
        return False
    return True
