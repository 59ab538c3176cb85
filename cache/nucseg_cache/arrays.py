"""Create, open, grow and write the arrays of a store, for samples and embeddings alike."""

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
"""Rows per chunk file of every small array, and the unit that one writer locks."""

_WRITE_ALL_CHUNKS: ArrayConfigParams = {"write_empty_chunks": True}
"""Also write chunks that hold fill values only: a missing file then always means lost data. Not stored on disk."""


def create_array(
    group: zarr.Group,
    name: str,
    shape: tuple[int, ...],
    dtype: Any,
    *,
    chunk_rows: int,
    compressor: BloscCodec | None = None,
) -> None:
    """Create one empty array.

    The CRC keeps damaged bytes away from the decoders, which are written in C and trust their input.
    """
    group.create_array(
        name,
        shape=(0, *shape),
        chunks=(chunk_rows, *shape),
        dtype=dtype,
        fill_value="" if dtype is str else 0,
        compressors=[compressor or BloscCodec(cname="zstd", clevel=3, shuffle="shuffle"), Crc32cCodec()],
        config=_WRITE_ALL_CHUNKS,
    )


def open_array(group: zarr.Group, name: str, document: dict[str, Any]) -> zarr.Array[Any]:
    """Open one array of a group from the parsed content of its zarr.json."""
    array: zarr.Array[Any] = zarr.Array.from_dict(group.store_path / name, document)
    opened: zarr.Array[Any] = array.with_config(_WRITE_ALL_CHUNKS)
    return opened


def grow_arrays(group: zarr.Group, names: Sequence[str], n_rows: int) -> dict[str, zarr.Array[Any]]:
    """Extend arrays to at least `n_rows` rows and reopen them; arrays that are long enough stay unchanged.

    Only the number of rows changes in an array's zarr.json. zarr's own `resize` writes the whole document as the
    installed version formats it, and the format of another version would break the seal.
    """
    documents = read_documents(group, names)
    short = {name: document for name, document in documents.items() if document["shape"][0] < n_rows}
    for document in short.values():
        document["shape"][0] = n_rows
    write_documents(group, short)
    return {name: open_array(group, name, document) for name, document in documents.items()}


def write_columns(first: int, columns: Sequence[tuple[zarr.Array[Any], npt.NDArray[Any]]]) -> None:
    """Write consecutive rows of several arrays concurrently, in no defined order; see `write_rows`."""
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

    Writing part of a chunk file first reads the rest of it. A file that cannot be decoded holds nothing worth keeping:
    it is deleted, and its other rows read as zeros, which match no record.
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
    """Yield the first and last of each run of consecutive numbers, so that one write covers a run."""
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
