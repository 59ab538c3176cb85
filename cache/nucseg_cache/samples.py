"""The samples of a store: the prepared image and masks, one row per sample, each with a record that verifies it.

record (N, 32): 16 bytes xxh3-128 of the row's description, then 16 bytes of its pixels. All zeros: the row is missing.
Zeros in the second half: its pixels were found damaged.
"""

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr

from nucseg_cache.arrays import BLOCK_ROWS, create_array, grow_arrays, write_columns, write_rows
from nucseg_cache.errors import BadRow
from nucseg_cache.location import stored_bytes
from nucseg_cache.reading import Reader, parallel_map
from nucseg_cache.rows import (
    DIGEST_BYTES,
    FILE_DIGEST_BYTES,
    RowInfo,
    SampleRow,
    check_sample,
    description_digest,
    pixel_digest,
)

_PRESENT, _ABSENT, _CHANGING = 1, 2, 3
"""Values of `state`. While a row is changing, the record decides; otherwise `state` must match the record."""

_FOUND_DAMAGED = "its image or masks were found damaged"
_PIXELS = ("image", "instances", "ignore")
_STRINGS = ("group", "stratum", "id")

ARRAYS = (
    *_PIXELS, "group", "stratum", "mpp", "size", "state", "image_digest", "mask_digest", "stored", "record", "id",
)  # fmt: skip
"""All arrays of the samples. The record is written after everything that it covers, the id last."""

_DESCRIPTION = tuple(name for name in ARRAYS if name not in (*_PIXELS, "stored"))


def create_arrays(group: zarr.Group, side_px: int) -> None:
    """Create the empty arrays of the samples."""
    pixels: dict[str, tuple[tuple[int, ...], str]] = {
        "image": ((side_px, side_px, 3), "uint8"),
        "instances": ((side_px, side_px), "int32"),
        "ignore": ((side_px, side_px), "bool"),
    }
    columns: dict[str, tuple[tuple[int, ...], Any]] = {
        **dict.fromkeys(_STRINGS, ((), str)),
        "mpp": ((), "float64"),
        "size": ((2,), "int32"),
        "state": ((), "uint8"),
        "image_digest": ((FILE_DIGEST_BYTES,), "uint8"),
        "mask_digest": ((FILE_DIGEST_BYTES,), "uint8"),
        "stored": ((len(_PIXELS),), "int64"),
        "record": ((2 * DIGEST_BYTES,), "uint8"),
    }
    for name, (shape, dtype) in pixels.items():
        create_array(group, name, shape, dtype, chunk_rows=1)
    for name, (shape, dtype) in columns.items():
        create_array(group, name, shape, dtype, chunk_rows=BLOCK_ROWS)


class Samples:
    """The arrays of the samples. Every row that is read is verified."""

    def __init__(self, group: zarr.Group, arrays: Mapping[str, zarr.Array[Any]]) -> None:
        self._group = group
        self._use(arrays)

    def _use(self, arrays: Mapping[str, zarr.Array[Any]]) -> None:
        self._arrays, self._reader = dict(arrays), Reader(arrays)

    @property
    def shortest(self) -> tuple[str, int]:
        """The array with the fewest rows, and how many it has."""
        name = min(ARRAYS, key=lambda name: self._arrays[name].shape[0])
        return name, int(self._arrays[name].shape[0])

    def append(self, first: int, rows: Sequence[SampleRow]) -> None:
        """Extend the arrays and write rows from `first` on; raises as `write` does."""
        self._check(rows)
        self._use(grow_arrays(self._group, ARRAYS, first + len(rows)))
        self.write(first, rows)

    def write(self, first: int, rows: Sequence[SampleRow], *, present: bool = True) -> None:
        """Write consecutive rows: clear the records, write the other arrays, then the records, then the ids.

        Raises:
            UnstorableSample: a sample does not fit the arrays; nothing was written.
        """
        self._check(rows)
        infos = [sample.info(first + i, present=present) for i, sample in enumerate(rows)]
        records = [description_digest(info) + pixel_digest(sample) for info, sample in zip(infos, rows, strict=True)]
        self._set("record", first, np.zeros((len(rows), 2 * DIGEST_BYTES), np.uint8))
        pixels = {name: np.stack([getattr(sample, name) for sample in rows]) for name in _PIXELS}
        write_columns(first, [(self._arrays[name], values) for name, values in {**pixels, **_columns(infos)}.items()])
        self._set("stored", first, self._file_bytes(range(first, first + len(rows))))
        self._set("record", first, _bytes(records))
        self._set("id", first, np.array([info.id for info in infos], dtype=object))

    def set_present(self, info: RowInfo, *, present: bool) -> None:
        """Set whether a row's image is in the data set. The change is atomic even if the process is killed."""
        changed = replace(info, present=present)
        pixels = bytes(np.asarray(self._arrays["record"][info.row]))[DIGEST_BYTES:]
        self._set("state", info.row, np.array([_CHANGING], np.uint8))
        self._set("record", info.row, _bytes([description_digest(changed) + pixels]))
        self._set("state", info.row, _states([changed]))

    def invalidate_pixels(self, info: RowInfo) -> None:
        """Clear the pixel digest in a row's record, so that the pixels are written again."""
        self._set("record", info.row, _bytes([description_digest(info) + bytes(DIGEST_BYTES)]))

    def describe(self, n_rows: int) -> tuple[list[RowInfo], list[BadRow]]:
        """The descriptions of all intact rows, and the damaged rows with the reason."""
        try:
            return self._described(slice(0, n_rows))
        except Exception as error:  # damage raises errors of many types; find out which block is damaged
            _reraise_access_errors(error)
        good: list[RowInfo] = []
        bad: list[BadRow] = []
        for first in range(0, n_rows, BLOCK_ROWS):
            where = slice(first, min(first + BLOCK_ROWS, n_rows))
            try:
                block_good, block_bad = self._described(where)
            except Exception as error:  # as above
                _reraise_access_errors(error)
                reason = f"its description cannot be decoded ({error})"
                block_good, block_bad = [], [BadRow(row, name, reason) for row, name in self._decodable_ids(where)]
            good, bad = good + block_good, bad + block_bad
        return good, bad

    def _described(self, where: slice) -> tuple[list[RowInfo], list[BadRow]]:
        good: list[RowInfo] = []
        bad: list[BadRow] = []
        for info, state, record in zip(*self._read_columns(where), strict=True):
            verified = _verified(info, state, record)
            if verified is None:
                bad.append(BadRow(info.row, info.id, "its description does not match its record"))
            else:
                good.append(verified)
        return good, bad

    def _decodable_ids(self, where: slice) -> list[tuple[int, str]]:
        """Row numbers and ids of a damaged block; empty ids if the ids cannot be decoded."""
        rows = range(where.start, where.stop)
        with suppress(ValueError, RuntimeError, TypeError, EOFError):  # raised on damage
            (ids,) = self._reader.columns(("id",), where)
            return [(row, str(sample_id)) for row, sample_id in zip(rows, ids, strict=True)]
        return [(row, "") for row in rows]

    def matches_record(self, info: RowInfo) -> bool:
        """Whether a row's record was made from this description; False if the record cannot be decoded."""
        with suppress(ValueError, RuntimeError, TypeError, EOFError):  # raised on damage
            return bytes(np.asarray(self._arrays["record"][info.row]))[:DIGEST_BYTES] == description_digest(info)
        return False

    def read(self, infos: Sequence[RowInfo]) -> tuple[list[SampleRow], list[BadRow]]:
        """The intact samples, and the damaged rows with the reason."""
        results = parallel_map(self._read_row, infos)
        good = [result for result in results if isinstance(result, SampleRow)]
        return good, [result for result in results if isinstance(result, BadRow)]

    def _read_row(self, info: RowInfo) -> SampleRow | BadRow:
        names = (*_PIXELS, "record")
        out = {name: np.empty(self._arrays[name].shape[1:], self._arrays[name].dtype) for name in names}
        try:
            self._reader.row_into(info.row, out)
        except Exception as error:  # as in `describe`
            _reraise_access_errors(error)
            return BadRow(info.row, info.id, f"it cannot be decoded ({error})")
        record = out.pop("record").tobytes()
        sample = SampleRow(
            info.id, info.group, info.stratum, info.mpp, info.size,
            **out, image_digest=info.image_digest, mask_digest=info.mask_digest,
        )  # fmt: skip
        reason = _why_damaged(record, info, sample)
        return BadRow(info.row, info.id, reason) if reason else sample

    def damaged(self, infos: Sequence[RowInfo]) -> list[BadRow]:
        """The rows whose pixels are known to be damaged without reading them.

        A file is missing or differs in size from what was written, or `invalidate_pixels` was called for the row.
        """
        if not infos:
            return []
        rows, where = np.array([info.row for info in infos]), slice(0, infos[-1].row + 1)
        written = self._reader.rows_or_zeros("stored", where)[rows]
        found = self._file_bytes(rows.tolist())
        invalidated = ~self._reader.rows_or_zeros("record", where)[rows, DIGEST_BYTES:].any(axis=1)
        return [
            BadRow(infos[i].row, infos[i].id, _wrong_sizes(found[i].tolist(), written[i].tolist()) or _FOUND_DAMAGED)
            for i in np.flatnonzero(invalidated | (found != written).any(axis=1)).tolist()
        ]

    def recorded_bytes(self, n_rows: int) -> int:
        """The bytes of all pixel files as recorded when they were written."""
        return int(self._reader.rows_or_zeros("stored", slice(0, n_rows)).sum())

    def _file_bytes(self, rows: Sequence[int]) -> npt.NDArray[np.int64]:
        """(n, 3) the present sizes of the rows' pixel files, 0 for a missing one."""
        return np.array([stored_bytes(self._arrays[name], rows) for name in _PIXELS], np.int64).T

    def _check(self, rows: Sequence[SampleRow]) -> None:
        for sample in rows:
            check_sample(sample, self._arrays["image"].shape[1])

    def _set(self, name: str, first: int, values: npt.NDArray[Any]) -> None:
        write_rows(self._arrays[name], first, values)

    def _read_columns(self, where: slice) -> tuple[list[RowInfo], list[int], list[bytes]]:
        column = dict(zip(_DESCRIPTION, self._reader.columns(_DESCRIPTION, where), strict=True))
        return _infos(where.start, column), column["state"].tolist(), _rows_as_bytes(column["record"])


def _wrong_sizes(found: Sequence[int], written: Sequence[int]) -> str:
    return "; ".join(
        f"the file of {name} has {size} bytes, expected {expected}"
        for name, size, expected in zip(_PIXELS, found, written, strict=True)
        if size != expected
    )


def _infos(first: int, column: Mapping[str, npt.NDArray[Any]]) -> list[RowInfo]:
    """The descriptions of consecutive rows from `first` on."""
    numbers = (column[name].tolist() for name in ("id", "group", "stratum", "mpp", "size", "state"))
    digests = (_rows_as_bytes(column[name]) for name in ("image_digest", "mask_digest"))
    return [
        RowInfo(
            row=row,
            id=str(sample_id),
            group=str(group),
            stratum=str(stratum),
            mpp=None if math.isnan(mpp) else mpp,
            size=(size[0], size[1]),
            image_digest=image_digest,
            mask_digest=mask_digest,
            present=state == _PRESENT,
        )
        for row, (sample_id, group, stratum, mpp, size, state, image_digest, mask_digest) in enumerate(
            zip(*numbers, *digests, strict=True), first
        )
    ]


def _rows_as_bytes(column: npt.NDArray[np.uint8]) -> list[bytes]:
    content, n_bytes = column.tobytes(), column.shape[1]
    return [content[first : first + n_bytes] for first in range(0, len(content), n_bytes)]


def _verified(info: RowInfo, state: int, record: bytes) -> RowInfo | None:
    """The description if its record matches, corrected by the record while `state` is changing; else None."""
    if record[:DIGEST_BYTES] == description_digest(info):
        return info if state in (_PRESENT, _ABSENT, _CHANGING) else None
    if state != _CHANGING:
        return None
    other = replace(info, present=not info.present)
    return other if record[:DIGEST_BYTES] == description_digest(other) else None


def _why_damaged(record: bytes, info: RowInfo, sample: SampleRow) -> str:
    """Why a row must not be trusted; an empty string if it is intact."""
    if not any(record):
        return "it is missing: it is being written, or its writer was stopped"
    if not any(record[:DIGEST_BYTES] == description_digest(replace(info, present=p)) for p in (True, False)):
        return "its image or masks were rewritten after the store was opened"
    if not any(record[DIGEST_BYTES:]):
        return _FOUND_DAMAGED
    if record[DIGEST_BYTES:] != pixel_digest(sample):
        return "image, instances or ignore do not match its record"
    return ""


def _reraise_access_errors(error: Exception) -> None:
    """Raise an access failure again: it does not mean that the row is damaged."""
    if isinstance(error, (OSError, MemoryError)):
        raise error


def _columns(infos: Sequence[RowInfo]) -> dict[str, npt.NDArray[Any]]:
    """The columns that describe rows, except the ids."""
    return {
        "group": np.array([info.group for info in infos], dtype=object),
        "stratum": np.array([info.stratum for info in infos], dtype=object),
        "mpp": np.array([np.nan if info.mpp is None else info.mpp for info in infos]),
        "size": np.array([info.size for info in infos], np.int32),
        "state": _states(infos),
        "image_digest": _bytes([info.image_digest for info in infos]),
        "mask_digest": _bytes([info.mask_digest for info in infos]),
    }


def _states(infos: Sequence[RowInfo]) -> npt.NDArray[np.uint8]:
    return np.array([_PRESENT if info.present else _ABSENT for info in infos], np.uint8)


def _bytes(rows: Sequence[bytes]) -> npt.NDArray[np.uint8]:
    return np.frombuffer(b"".join(rows), np.uint8).reshape(len(rows), -1)
