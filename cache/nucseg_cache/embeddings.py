"""The embeddings of one key and one view: values, a record that verifies each row, and block locks for writers.

record (N, 48): 32 bytes digest of the image that was embedded, then 16 bytes xxh3-128 of key, view, id and the row as
stored (its values and, in a view that keeps images, its image). Key, view and id are included so that a row copied from
elsewhere does not pass for this one. A record of zeros means that the row is missing.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import xxhash

from nucseg_cache.arrays import BLOCK_ROWS, runs
from nucseg_cache.embedding_arrays import RECORD_BYTES, EmbeddingArrays
from nucseg_cache.errors import (
    BadRow,
    EmbeddingNotFound,
    RowDamaged,
    UnstorableEmbedding,
    access,
    minimal_embed_command,
)
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
    """The embeddings of one key and view; returned by `Store.embeddings`. The first write creates the arrays."""

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
        """How the images of the view were made, as sealed with the view; empty for the view `identity`."""
        with self._reading():
            self._arrays.open()
        return dict(self._arrays.described)

    # ---- which rows are embedded

    def missing(self, within: range | None = None, *, sizes: bool = False) -> list[int]:
        """The rows present in the data set that lack an embedding of their current image, ascending.

        Args:
            within: check only these rows and read only their records; None checks all rows.
            sizes: also return rows whose file is missing or differs in size from what was written. Files are not read.
        """
        table = self._table()
        infos = table.values() if within is None else [table[row] for row in within if row in table]
        present = [info for info in infos if info.present]
        with self._reading():
            records = self._refresh(within)
            is_embedded = _are_embedded(records, present)
            missing = [info.row for info, embedded in zip(present, is_embedded, strict=True) if not embedded]
            if sizes:
                kept = [info for info, embedded in zip(present, is_embedded, strict=True) if embedded]
                missing += [bad.row for bad in self._wrong_sizes(kept)]
        return sorted(missing)

    def embedded_rows(self) -> list[RowInfo]:
        """The rows that have an embedding of their image, including rows absent from the data set."""
        with self._reading():
            records = self._refresh()
        infos = list(self._table().values())
        return [info for info, embedded in zip(infos, _are_embedded(records, infos), strict=True) if embedded]

    def damaged(self) -> list[BadRow]:
        """The rows known to be damaged without reading them: a file of another size or an undecodable record."""
        embedded, table = self.embedded_rows(), self._table()
        with self._reading():
            lost = [row for where in self._arrays.undecodable("record") for row in range(where.start, where.stop)]
            without = [BadRow(row, table[row].id, "its record cannot be decoded") for row in lost if row in table]
            return self._wrong_sizes(embedded) + without

    def _wrong_sizes(self, infos: Sequence[RowInfo]) -> list[BadRow]:
        """The rows among these embedded ones whose file is missing or differs in size from what was written."""
        if not infos:
            return []
        rows = np.array([info.row for info in infos])
        first = rows.min()
        written = self._arrays.rows("stored", slice(first, rows.max() + 1))[rows - first]
        found = self._arrays.file_bytes(rows.tolist())
        return [
            BadRow(infos[i].row, infos[i].id, f"its file has {found[i]} bytes, expected {written[i]}")
            for i in np.flatnonzero((found != written).reshape(len(rows), -1).any(axis=1)).tolist()
        ]

    def file_bytes(self) -> tuple[int, int]:
        """The number of embedded rows, and the bytes of their files as recorded when they were written."""
        rows = [info.row for info in self.embedded_rows()]
        with self._reading():
            n_bytes = self._arrays.rows("stored", slice(0, self._arrays.n_rows))[rows].sum() if rows else 0
        return len(rows), int(n_bytes)

    # ---- reading

    def read(self, rows: Sequence[int], *, out: Floats | None = None) -> Floats:
        """Read embeddings and verify each against its record.

        Args:
            rows: row numbers, in any order.
            out: a contiguous array of the returned shape and type to read into. Allocating 2 MiB takes about as long as
                decoding into it, so reuse an array when reading often.

        Returns:
            (n, 256, 64, 64), float16 for format f16, float32 otherwise.

        Raises:
            EmbeddingNotFound: nothing was written under this key and view yet.
            RowDamaged: a row is missing, stale, swapped, truncated or edited; the message names row and id.
            StoreDamaged: attributes or array metadata were changed after they were written.
            StoreAccessError: the file system or the network failed.
        """
        values, bad = self.try_read(rows, out=out)
        self._refuse(bad)
        return values

    def read_with_images(self, rows: Sequence[int]) -> tuple[Floats, Images | None]:
        """As `read`, with the prepared images (n, S, S, 3) that were embedded, if the view keeps them.

        A view without images of its own is a flip or rotation of the samples' images; None is returned for them.
        """
        stored = self.read_stored(rows)
        return self.format.decode(stored), stored.images

    def read_stored(self, rows: Sequence[int], *, out: Stored | None = None) -> Stored:
        """As `read`, but in the storage format: for i8 and i6 the codes and the factors to multiply them by.

        Args:
            rows: row numbers, in any order.
            out: arrays from `allocate` to read into.
        """
        stored, bad = self.try_read_stored(rows, out=out)
        self._refuse(bad)
        return stored

    def try_read(self, rows: Sequence[int], *, out: Floats | None = None) -> tuple[Floats, list[BadRow]]:
        """As `read`, but returns damaged rows with the reason instead of raising; they are zeros in the array."""
        if out is not None:
            _check_out(out, self.format.read_dtype, (len(rows), *EMBEDDING_SHAPE))
        buffer = None if self.format.has_scale or out is None else self.allocate(len(rows), values=out)
        stored, bad = self.try_read_stored(rows, out=buffer)
        return self.format.decode(stored, out), bad

    def try_read_stored(self, rows: Sequence[int], *, out: Stored | None = None) -> tuple[Stored, list[BadRow]]:
        """As `read_stored`, but returns damaged rows with the reason instead of raising; they are zeros."""
        stored = self.allocate(len(rows)) if out is None else out
        with self._reading():
            records = self._refresh() if self._records is None else self._records
            reasons = parallel_map(lambda i: self._read_row(rows[i], records, stored[i : i + 1]), range(len(rows)))
            retried = [i for i, reason in enumerate(reasons) if reason]
            if retried:  # a writer may have replaced a row after its record was read: read the new record once
                records = self._refresh()
            bad: list[BadRow] = []
            for i in retried:
                reason = self._read_row(rows[i], records, stored[i : i + 1])
                if reason:
                    stored[i : i + 1].clear()
                    info = self._table().get(rows[i])
                    bad.append(BadRow(rows[i], info.id if info else "", reason))
        return stored, bad

    def allocate(self, n_rows: int, *, values: npt.NDArray[np.generic] | None = None) -> Stored:
        """Allocate uninitialised arrays for rows in the storage format.

        Args:
            n_rows: the number of rows.
            values: a contiguous array (n, 256, 64, 64) of the format's type to use for the values.

        Raises:
            EmbeddingNotFound: nothing was written under this key and view yet.
        """
        with self._reading():
            if not self._arrays.open():
                raise EmbeddingNotFound(
                    f"{self._location} has no embeddings of {label(self.key.fields)}, view {self.view}. Run "
                    f"`{minimal_embed_command(self._location, self.key.fields, self.view)}` first."
                )
        return self._arrays.allocate(n_rows, values=values)

    def _refuse(self, bad: Sequence[BadRow]) -> None:
        if bad:
            raise RowDamaged(self._location, self._what, bad, self.key.fields, self.view)

    def _read_row(self, row: int, records: npt.NDArray[np.uint8], into: Stored) -> str:
        """Read one row into arrays of one row; returns why it cannot be trusted, or an empty string."""
        info = self._table().get(row)
        if info is None:
            return "the store has no intact sample in this row"
        if not _are_embedded(records, [info])[0]:
            stale = row < len(records) and records[row].any()
            return "it was made from another version of the image" if stale else "it is missing"
        try:
            self._arrays.read(row, into)
        except (OSError, MemoryError):
            raise
        except Exception as error:  # codecs raise errors of many types on damaged bytes
            return f"it cannot be decoded ({error})"
        if self._digest(info, into) != records[row, _IMAGE_BYTES:].tobytes():
            return "its values do not match its record"
        return ""

    @contextmanager
    def _reading(self) -> Iterator[None]:
        with access(self._location, "reading embeddings from"):
            yield

    def _refresh(self, within: range | None = None) -> npt.NDArray[np.uint8]:
        """Read the records again, all or those within a range; returns all, (n, 48)."""
        self._arrays.open(reopen=True)
        n_rows = self._arrays.n_rows
        if within is None or self._records is None or len(self._records) != n_rows:
            self._records = self._arrays.rows("record", slice(0, n_rows)) if n_rows else _NO_RECORDS
        elif within.start < n_rows:
            where = slice(within.start, min(within.stop, n_rows))
            self._records[where] = self._arrays.rows("record", where)
        return self._records

    # ---- writing

    def blocks(self) -> list[range]:
        """The rows of each block, the unit that one writer claims."""
        n_rows = self._n_rows
        return [range(first, min(first + BLOCK_ROWS, n_rows)) for first in range(0, n_rows, BLOCK_ROWS)]

    @contextmanager
    def claim(self, block: range, *, wait: bool = False) -> Iterator[bool]:
        """Lock one block for writing; yields whether the lock was acquired (always, if `wait`).

        An object store has no locks: several writers must be coordinated by one scheduler there.
        """
        if self._locks is None:
            yield True
            return
        slot = block_slot(self.key.hash, block.start // BLOCK_ROWS)
        if wait:
            with self._locks.acquire(slot):
                yield True
        else:
            with self._locks.try_acquire(slot) as acquired:
                yield acquired

    def ensure_arrays(self) -> None:
        """Create the arrays if they do not exist, and extend them to the number of rows of the store.

        `write` does this too. On an object store, which has no locks, one process must do it before several write.

        Raises:
            ViewDiffers: the store has a view of this name that was made in another way.
            StoreAccessError: no space or no permission.
        """
        with access(self._location, "writing embeddings to"):
            self._arrays.ensure_arrays(self._n_rows, self._locks)

    def write(self, rows: Sequence[int], values: Floats, images: Images | None = None) -> None:
        """Write embeddings: clear the records, write values and images, write the records.

        The caller must have claimed the blocks of the rows.

        Args:
            rows: N distinct row numbers.
            values: (N, 256, 64, 64) floats.
            images: (N, S, S, 3) uint8, the prepared images that were embedded; only for a view that keeps them.

        Raises:
            UnstorableEmbedding: values that are not finite, of another shape or too large for the format; images for a
                view that keeps none, or no images for one that does. Nothing was written.
            ViewDiffers: the store has a view of this name that was made in another way.
            StoreAccessError: no space or no permission; rows whose record was written are kept.
        """
        stored = replace(self.format.encode(checked(values)), images=images)
        if len(values) != len(rows) or len(set(rows)) != len(rows):
            raise UnstorableEmbedding(f"expected one embedding per row, got {len(values)} for the rows {list(rows)}")
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
            raise UnstorableEmbedding(
                f"images for the view {self.view} of {self._location}: expected {expected}, got {found}"
            )

    def clear(self, rows: Sequence[int]) -> None:
        """Clear the records of rows, so that the next `nucseg embed` computes them again.

        The caller must have claimed the blocks of the rows.
        """
        with access(self._location, "writing embeddings to"):
            if rows and self._arrays.open():
                self._set_records(dict.fromkeys(rows, np.zeros(RECORD_BYTES, np.uint8)))

    @property
    def _n_rows(self) -> int:
        """The number of rows up to the last trusted one; the table is in row order."""
        return next(reversed(self._table()), -1) + 1

    def _set_records(self, new: Mapping[int, npt.NDArray[np.uint8]]) -> None:
        """Write records and update the copy in memory, which avoids reading all records after each write."""
        try:
            self._set_small("record", new)
        except BaseException:
            self._records = None  # unknown which of them were written
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


def _are_embedded(records: npt.NDArray[np.uint8], infos: Sequence[RowInfo]) -> npt.NDArray[np.bool_]:
    """Which rows have a record of their current image."""
    is_embedded = np.zeros(len(infos), np.bool_)
    rows = np.array([info.row for info in infos], np.int64)
    within = rows < len(records)
    digests = np.frombuffer(b"".join(info.image_digest for info in infos), np.uint8).reshape(len(infos), _IMAGE_BYTES)
    own = records[rows[within]]
    is_embedded[within] = (own[:, :_IMAGE_BYTES] == digests[within]).all(axis=1) & own.any(axis=1)
    return is_embedded
