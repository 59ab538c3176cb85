"""Read and decode chunk files in a folder without zarr: the same bytes in less than half the time.

A chunk file is a Blosc frame followed by its CRC-32C. zarr hands each step to another thread and copies in between;
here a row is decoded directly into the caller's array. The safety rules are zarr's: bytes with a wrong CRC are never
decoded, and a missing file reads as zeros, which match no digest.
"""

from __future__ import annotations

import io
import os
import sys
from typing import Any, Literal

import google_crc32c
import numpy as np
import numpy.typing as npt
import zarr
from numcodecs import VLenUTF8, blosc
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec, VLenUTF8Codec
from zarr.core.metadata import ArrayV3Metadata
from zarr.storage import LocalStore

_CRC_BYTES = _COUNT_BYTES = 4
_FRAME_HEADER_BYTES = 16


class ChunkFiles:
    """The chunk files of one array whose chunks divide its first axis alone."""

    def __init__(self, folder: str, shape: tuple[int, ...], chunk_rows: int, dtype: np.dtype[Any] | None) -> None:
        """Describe the array in a folder; `dtype` is None for an array of strings. Nothing is read."""
        self._folder, self._tail = f"{folder}/c/", "/0" * (len(shape) - 1)
        self._n_rows, self._row_shape, self._chunk_rows = shape[0], shape[1:], chunk_rows
        self._dtype = dtype

    @classmethod
    def of(cls, array: zarr.Array[Any]) -> ChunkFiles | None:
        """The chunk files of an array; None if zarr must read it: not in a folder, or not in this package's layout."""
        store, kind = array.store, kind_of(array)
        if not isinstance(store, LocalStore) or kind is None or sys.byteorder != "little":
            return None
        dtype = np.dtype(array.dtype) if kind == "numbers" else None
        return cls(os.fspath(store.root / array.path), array.shape, array.chunks[0], dtype)

    def read_row(self, row: int, out: npt.NDArray[Any]) -> None:
        """Read one row of numbers into a contiguous array of its shape and type.

        Raises:
            ValueError, RuntimeError: the chunk file is damaged; the content of `out` is then undefined.
            OSError: the chunk file cannot be read.
        """
        if self._chunk_rows == 1:
            self._decode(row, out)
        else:
            out[...] = self.chunk(row // self._chunk_rows)[row % self._chunk_rows]

    def read_rows(self, where: slice) -> npt.NDArray[Any]:
        """Read consecutive rows, clipped to the array's length; raises as `read_row` does."""
        n_rows, stop = self._chunk_rows, min(where.stop, self._n_rows)
        indices = range(where.start // n_rows, -(-stop // n_rows))
        parts = [self.chunk(i)[max(where.start - i * n_rows, 0) : stop - i * n_rows] for i in indices]
        return np.concatenate(parts) if parts else self._filled(0)

    def chunk(self, index: int) -> npt.NDArray[Any]:
        """Read all rows of one chunk file; raises as `read_row` does."""
        chunk = self._filled(self._chunk_rows)
        if self._dtype is not None:
            self._decode(index, chunk)
            return chunk
        frame = self._frame(index)
        return chunk if frame is None else decode_strings(frame, len(chunk))

    def _filled(self, n_rows: int) -> npt.NDArray[Any]:
        shape = (n_rows, *self._row_shape)
        return np.full(shape, "", object) if self._dtype is None else np.zeros(shape, self._dtype)

    def _decode(self, index: int, out: npt.NDArray[Any]) -> None:
        frame = self._frame(index)
        if frame is None:
            out[...] = 0
            return
        n_bytes = int.from_bytes(frame[4:8].tobytes(), "little")
        if n_bytes != out.nbytes:
            raise ValueError(f"it holds {n_bytes} bytes, expected {out.nbytes}")
        # uses a context of its own and releases the interpreter lock: zarr disables Blosc's threads on import
        blosc.decompress(frame, out)

    def _frame(self, index: int) -> npt.NDArray[np.uint8] | None:
        """The Blosc frame of a chunk after its CRC was checked; None if there is no file."""
        try:
            with io.FileIO(f"{self._folder}{index}{self._tail}") as file:
                content = np.frombuffer(file.readall(), np.uint8)
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):  # zarr treats all three as a missing file
            return None
        return checked_frame(content)


def kind_of(array: zarr.Array[Any]) -> Literal["numbers", "strings"] | None:
    """What the chunk files of an array hold; None if the array does not have this package's layout."""
    document = array.metadata
    if not isinstance(document, ArrayV3Metadata):
        return None
    first, *others = (type(codec) for codec in document.codecs)
    is_ours = others == [BloscCodec, Crc32cCodec] and first in (BytesCodec, VLenUTF8Codec)
    if not is_ours or array.chunks[1:] != array.shape[1:] or document.encode_chunk_key((1,)) != "c/1":
        return None
    return "numbers" if first is BytesCodec else "strings"


def checked_frame(content: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """The Blosc frame in the content of a chunk file; ValueError if the CRC is wrong."""
    frame, stored = content[:-_CRC_BYTES], content[-_CRC_BYTES:].tobytes()
    if len(frame) < _FRAME_HEADER_BYTES or google_crc32c.value(frame) != int.from_bytes(stored, "little"):
        raise ValueError(f"the CRC-32C of its {len(content)} bytes is wrong")
    return frame


def decode_strings(frame: npt.NDArray[np.uint8], n_strings: int) -> npt.NDArray[Any]:
    """The strings in a Blosc frame; ValueError unless there are exactly `n_strings`.

    The count is checked first because the decoder allocates as many as the frame claims, and a damaged frame may claim
    more than memory can hold.
    """
    content = blosc.decompress(frame)
    found = int.from_bytes(content[:_COUNT_BYTES], "little")
    if found != n_strings:
        raise ValueError(f"it holds {found} strings, expected {n_strings}")
    strings: npt.NDArray[Any] = VLenUTF8().decode(content)
    return strings
