"""The embeddings of one key and one view: values, a record that vouches for each row, and who may write.

record (N, 48): 32 bytes digest of the image the row came from, 16 bytes xxh3-128 of the row as stored (its values
and, in a view that keeps images, its image) together with key, view and id, so that a row copied from elsewhere is not
taken for this one. Zeros: the row is not there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import xxhash

from nucseg_cache.arrays import BLOCK_ROWS, runs
from nucseg_cache.embedding_arrays import RECORD_BYTES, EmbeddingArrays
from nucseg_cache.errors import BadRow, EmbeddingNotFound, RowDamaged, UnstorableEmbedding, access
from nucseg_cache.formats import EMBEDDING_SHAPE, Floats, Stored, checked, format_named
from nucseg_cache.key import Key, label
from nucseg_cache.locks import StoreLocks, block_slot
from nucseg_cache.reading import parallel_map
from nucseg_cache.rows import RowInfo
from nucseg_cache.views import ViewSpec

Images = npt.NDArray[np.uint8]

_IMAGE_BYTES = 32
_NO_RECORDS = np.zeros((0, RECORD_BYTES), np.uint8)


class Embeddings:
    """The embeddings of one key and view. Made by `Store.embeddings`; nothing is created before the first write."""

    def __init__(
        self,
        key: Key,
        view: ViewSpec,
        arrays: EmbeddingArrays,
        table: Callable[[], dict[int, RowInfo]],
        *,
        location: str,
        locks: StoreLocks | None,
    ) -> None:
        self.key, self.view, self._view = key, view.name, view
        self._arrays, self._table, self._locks = arrays, table, locks
        self.format = format_named(key.fields["format"])
        self._location, self._what = location, f"the embeddings {key.hash}/{view.name}"
        self._records: npt.NDArray[np.uint8] | None = None

    @property
    def described(self) -> dict[str, str]:
        """How the images of the view were made, as sealed with it; empty for the images as they are."""
        with self._reading():
            self._arrays.open()
        return dict(self._arrays.described)

    # ---- what is there

    def missing(self, within: range | None = None, *, sizes: bool = False) -> list[int]:
        """The present rows that have no embedding of their present image, ascending.

        Args:
            within: look at these rows alone, and read no other records; None looks at all.
            sizes: also those whose file is missing or of another size than was written (found without reading it).
        """
        table = self._table()
        infos = table.values() if within is None else [table[row] for row in within if row in table]
        present = [info for info in infos if info.present]
        with self._reading():
            records = self._refresh(within)
            there = _are_embedded(records, present)
            missing = [info.row for info, is_there in zip(present, there, strict=True) if not is_there]
            if sizes:
                kept = [info for info, is_there in zip(present, there, strict=True) if is_there]
                missing += [bad.row for bad in self._wrong_sizes(kept)]
        return sorted(missing)

    def embedded_rows(self) -> list[RowInfo]:
        """The rows, present or not, that have an embedding of their image."""
        with self._reading():
            records = self._refresh()
        infos = list(self._table().values())
        return [info for info, is_there in zip(infos, _are_embedded(records, infos), strict=True) if is_there]

    def damaged(self) -> list[BadRow]:
        """What is wrong without reading an embedding: a file of another size, a record that cannot be decoded."""
        there, table = self.embedded_rows(), self._table()
        with self._reading():
            lost = [row for where in self._arrays.undecodable("record") for row in range(where.start, where.stop)]
            without = [BadRow(row, table[row].id, "its record cannot be decoded") for row in lost if row in table]
            return self._wrong_sizes(there) + without

    def _wrong_sizes(self, infos: Sequence[RowInfo]) -> list[BadRow]:
        """Those of the rows with a record whose file is missing or of another size than was written."""
        if not infos:
            return []
        rows = np.array([info.row for info in infos])
        first = rows.min()
        written = self._arrays.rows("stored", slice(first, rows.max() + 1))[rows - first]
        found = self._arrays.file_bytes(rows.tolist())
        return [
            BadRow(infos[i].row, infos[i].id, f"its file has {found[i]} bytes, written were {written[i]}")
            for i in np.flatnonzero((found != written).reshape(len(rows), -1).any(axis=1)).tolist()
        ]

    def file_bytes(self) -> tuple[int, int]:
        """How many rows have an embedding of their image, and the bytes of their files as noted when written."""
        rows = [info.row for info in self.embedded_rows()]
        with self._reading():
            noted = self._arrays.rows("stored", slice(0, self._arrays.n_rows))[rows].sum() if rows else 0
        return len(rows), int(noted)

    # ---- reading

    def read(self, rows: Sequence[int], *, out: Floats | None = None) -> Floats:
        """The embeddings of rows, each held against its record.

        Args:
            rows: which ones, in any order.
            out: where they are to go: contiguous, of the shape and type that is returned. A new array of 2 MiB costs
                more than what is read into it, so whoever reads often brings its own.

        Returns:
            (n, 256, 64, 64), float16 for format f16, float32 otherwise.

        Raises:
            EmbeddingNotFound: nothing was written under this key and view yet.
            RowDamaged: a row is missing, stale, swapped, truncated or edited; row and id are named.
            StoreDamaged: what describes the arrays was changed after it was written.
            StoreAccessError: they cannot be read.
        """
        values, bad = self.try_read(rows, out=out)
        self._refuse(bad)
        return values

    def read_with_images(self, rows: Sequence[int]) -> tuple[Floats, Images | None]:
        """As `read`, with the prepared image (n, S, S, 3) that each embedding belongs to where the view keeps them.

        Without images of its own a view shows the samples', moved as the view's name says; then None stands for them.
        """
        stored = self.read_stored(rows)
        return self.format.decode(stored), stored.images

    def read_stored(self, rows: Sequence[int], *, out: Stored | None = None) -> Stored:
        """As `read`, but as the rows lie on disk: where they are codes, with the factors to multiply them by.

        Args:
            rows: which ones, in any order.
            out: where they are to go, made by `room`.
        """
        stored, bad = self.try_read_stored(rows, out=out)
        self._refuse(bad)
        return stored

    def try_read(self, rows: Sequence[int], *, out: Floats | None = None) -> tuple[Floats, list[BadRow]]:
        """As `read`, but rows that cannot be trusted are returned with the reason, and are zeros in the array."""
        if out is not None:
            _check_out(out, self.format.read_dtype, (len(rows), *EMBEDDING_SHAPE))
        room = None if self.format.has_scale or out is None else self.allocate(len(rows), values=out)
        stored, bad = self.try_read_stored(rows, out=room)
        return self.format.decode(stored, out), bad

    def try_read_stored(self, rows: Sequence[int], *, out: Stored | None = None) -> tuple[Stored, list[BadRow]]:
        """As `read_stored`, but rows that cannot be trusted are returned with the reason, and are zeros."""
        stored = self.allocate(len(rows)) if out is None else out
        with self._reading():
            records = self._refresh() if self._records is None else self._records
            reasons = parallel_map(lambda i: self._read_row(rows[i], records, stored[i : i + 1]), range(len(rows)))
            again = [i for i, reason in enumerate(reasons) if reason]
            if again:  # a writer may have replaced the row between record and values: its new record is read once
                records = self._refresh()
            bad: list[BadRow] = []
            for i in again:
                reason = self._read_row(rows[i], records, stored[i : i + 1])
                if reason:
                    stored[i : i + 1].clear()
                    info = self._table().get(rows[i])
                    bad.append(BadRow(rows[i], info.id if info else "", reason))
        return stored, bad

    def allocate(self, n_rows: int, *, values: npt.NDArray[np.generic] | None = None) -> Stored:
        """Arrays for that many rows as they lie on disk, of any content.

        Args:
            n_rows: how many.
            values: the array (n, 256, 64, 64), contiguous and of the format's type, that the values are to lie in.

        Raises:
            EmbeddingNotFound: nothing was written under this key and view yet.
        """
        with self._reading():
            if not self._arrays.open():
                raise EmbeddingNotFound(
                    f"{self._location} has no embeddings of {label(self.key.fields)}, view {self.view}. Run `nucseg "
                    "embed` with these options first."
                )
        return self._arrays.allocate(n_rows, values=values)

    def _refuse(self, bad: Sequence[BadRow]) -> None:
        if bad:
            raise RowDamaged(self._location, self._what, bad)

    def _read_row(self, row: int, records: npt.NDArray[np.uint8], into: Stored) -> str:
        """Read one row into arrays of one row; the reason why it cannot be trusted, or nothing."""
        info = self._table().get(row)
        if info is None:
            return "the store has no sample in this row that can be trusted"
        if not _is_embedded(records, info):
            stale = row < len(records) and records[row].any()
            return "it was made from another image than the present one" if stale else "it is missing"
        try:
            self._arrays.read(row, into)
        except (OSError, MemoryError):
            raise
        except Exception as error:  # whatever a codec makes of damaged bytes, it is damage
            return f"it cannot be decoded ({error})"
        if self._digest(info, into) != records[row, _IMAGE_BYTES:].tobytes():
            return "its values are not what its record says"
        return ""

    @contextmanager
    def _reading(self) -> Iterator[None]:
        with access(self._location, "reading embeddings from"):
            yield

    def _refresh(self, within: range | None = None) -> npt.NDArray[np.uint8]:
        """Read the records as they are now, all or those within a range: (n, 48)."""
        self._arrays.open(anew=True)
        n_rows = self._arrays.n_rows
        if within is None or self._records is None or len(self._records) != n_rows:
            self._records = self._arrays.rows("record", slice(0, n_rows)) if n_rows else _NO_RECORDS
        elif within.start < n_rows:
            where = slice(within.start, min(within.stop, n_rows))
            self._records[where] = self._arrays.rows("record", where)
        return self._records

    # ---- writing

    def blocks(self) -> list[range]:
        """The rows of each block: what one writer owns."""
        n_rows = self._n_rows
        return [range(first, min(first + BLOCK_ROWS, n_rows)) for first in range(0, n_rows, BLOCK_ROWS)]

    @contextmanager
    def claim(self, block: range, *, wait: bool = False) -> Iterator[bool]:
        """Own one block for writing; yields whether it could be had (always, when waiting).

        On an object store nothing is locked: several writers go through one scheduler there.
        """
        if self._locks is None:
            yield True
            return
        slot = block_slot(self.key.hash, block.start // BLOCK_ROWS)
        if wait:
            with self._locks.acquire(slot):
                yield True
        else:
            with self._locks.try_acquire(slot) as held:
                yield held

    def ensure_arrays(self) -> None:
        """Make the arrays where they are not there, and room in them for all rows of the store.

        The first write does so too. On an object store, which has no locks, one process does it before several write.

        Raises:
            ViewDiffers: the view was made in another way than this one.
            StoreAccessError: no space, no permission.
        """
        with access(self._location, "writing embeddings to"):
            self._arrays.ensure_arrays(self._n_rows, self._locks)

    def write(self, rows: Sequence[int], values: Floats, images: Images | None = None) -> None:
        """Write embeddings: records cleared, then values and images, then records. The caller owns the rows' blocks.

        Args:
            rows: N row numbers, each once.
            values: (N, 256, 64, 64) floats.
            images: (N, S, S, 3) uint8, the prepared images that were embedded, in a view that keeps them.

        Raises:
            UnstorableEmbedding: not finite, of another shape, or too large for the format; images where the view keeps
                none, or none where it does; nothing was written.
            ViewDiffers: the view was made in another way than this one.
            StoreAccessError: no space, no permission; rows whose record was written are kept.
        """
        stored = replace(self.format.encode(checked(values)), images=images)
        if len(values) != len(rows) or len(set(rows)) != len(rows):
            raise UnstorableEmbedding(f"each row gets one embedding, got {len(values)} for the rows {list(rows)}")
        infos = [self._table()[row] for row in rows]
        with access(self._location, "writing embeddings to"):
            self._arrays.open()
            self._check_images(images, len(rows))
            self._arrays.ensure_arrays(self._n_rows, self._locks)
            self.clear(rows)
            for i, row in enumerate(rows):
                self._arrays.write(row, stored[i : i + 1])
            self._set_small("stored", dict(zip(rows, self._arrays.file_bytes(rows), strict=True)))
            self._set_records({info.row: self._record(info, stored[i : i + 1]) for i, info in enumerate(infos)})

    def _check_images(self, images: Images | None, n_rows: int) -> None:
        side_px = self._view.side_px
        expected = f"uint8 of shape {(n_rows, side_px, side_px, 3)}" if self._arrays.has_images else "none"
        found = "none" if images is None else f"{images.dtype} of shape {images.shape}"
        if found != expected:
            raise UnstorableEmbedding(f"images for the view {self.view} of {self._location}: {expected}, got {found}")

    def clear(self, rows: Sequence[int]) -> None:
        """Take the records of rows away: the next `embed` computes them anew. The caller owns the rows' blocks."""
        if rows and self._arrays.open():
            self._set_records(dict.fromkeys(rows, np.zeros(RECORD_BYTES, np.uint8)))

    @property
    def _n_rows(self) -> int:
        """Rows of the store up to the last that can be trusted; the table is in their order."""
        return next(reversed(self._table()), -1) + 1

    def _set_records(self, new: Mapping[int, npt.NDArray[np.uint8]]) -> None:
        """Write records, and hold in memory what was written: reading all anew would take ever longer."""
        try:
            self._set_small("record", new)
        except BaseException:
            self._records = None  # some were written, and nobody knows which
            raise
        if self._records is not None and max(new) < len(self._records):
            for row, record in new.items():
                self._records[row] = record
        else:
            self._records = None

    def _set_small(self, name: str, new: Mapping[int, npt.NDArray[np.generic]]) -> None:
        for first, last in runs(sorted(new)):
            self._arrays.write_small(name, first, np.stack([new[row] for row in range(first, last + 1)]))

    def _digest(self, info: RowInfo, stored: Stored) -> bytes:
        digest = xxhash.xxh3_128(f"{self.key.hash}/{self.view}/{info.id}".encode() + b"\0")
        digest.update(np.ascontiguousarray(stored.values).data)
        if stored.scale is not None:
            digest.update(np.ascontiguousarray(stored.scale).data)
        if stored.images is not None:
            digest.update(np.ascontiguousarray(stored.images).data)
        return digest.digest()

    def _record(self, info: RowInfo, stored: Stored) -> npt.NDArray[np.uint8]:
        return np.frombuffer(info.image_digest + self._digest(info, stored), np.uint8)


def _check_out(out: Floats, dtype: str, shape: tuple[int, ...]) -> None:
    if (out.dtype.name, out.shape) != (dtype, shape) or not out.flags.c_contiguous:
        raise ValueError(f"out is {out.dtype} of shape {out.shape}, expected contiguous {dtype} of {shape}")


def _is_embedded(records: npt.NDArray[np.uint8], info: RowInfo) -> bool:
    return (
        info.row < len(records)
        and records[info.row, :_IMAGE_BYTES].tobytes() == info.image_digest
        and bool(records[info.row].any())
    )


def _are_embedded(records: npt.NDArray[np.uint8], infos: Sequence[RowInfo]) -> npt.NDArray[np.bool_]:
    """As `_is_embedded`, for many rows at once."""
    there = np.zeros(len(infos), np.bool_)
    rows = np.array([info.row for info in infos], np.int64)
    within = rows < len(records)
    digests = np.frombuffer(b"".join(info.image_digest for info in infos), np.uint8).reshape(len(infos), _IMAGE_BYTES)
    own = records[rows[within]]
    there[within] = (own[:, :_IMAGE_BYTES] == digests[within]).all(axis=1) & own.any(axis=1)
    return there
