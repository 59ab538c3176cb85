"""The store: the samples of one data set, and their embeddings by key. Its rules are in ../README.md."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import zarr

from nucseg_cache.creation import create_in_folder, create_on_object_store
from nucseg_cache.embedding_arrays import EmbeddingArrays
from nucseg_cache.embeddings import Embeddings
from nucseg_cache.errors import (
    BadRow,
    RowDamaged,
    StoreAccessError,
    StoreExists,
    access,
)
from nucseg_cache.formats import format_named
from nucseg_cache.groups import delete_group
from nucseg_cache.key import Key
from nucseg_cache.key_selection import choose
from nucseg_cache.layout import Layout
from nucseg_cache.location import Mode, local_path
from nucseg_cache.locks import SAMPLES, StoreLocks
from nucseg_cache.rows import RowInfo, SampleRow
from nucseg_cache.views import ViewSpec


class Store:
    """Everything cached for one data set, prepared in one way. Made by `Store.open` and `Store.create`."""

    def __init__(self, location: str | Path, mode: Mode) -> None:
        self.location = str(location)
        self._mode = mode
        self._layout: Layout
        self._good: dict[int, RowInfo]
        self._bad: list[BadRow]
        self._rows_by_id: dict[str, int]
        self._load()
        folder = local_path(location)
        self._locks = StoreLocks.of(folder) if folder is not None and mode == "r+" else None

    @classmethod
    def open(cls, location: str | Path, *, mode: Mode = "r") -> Store:
        """Open a store, to read (`r`) or to add to it (`r+`).

        Raises:
            StoreNotFound: nothing is there.
            StoreFormatError: it is of another version of the format, or no store of nucseg.
            StoreDamaged: what describes the arrays was changed after it was written.
            StoreAccessError: it cannot be read.
        """
        return cls(location, mode)

    @classmethod
    def create(
        cls,
        location: str | Path,
        *,
        dataset: str,
        source: str,
        preparation: Mapping[str, str],
        rows: Sequence[SampleRow] = (),
    ) -> Store:
        """Create a store under a temporary name, rename it, and add the rows.

        Args:
            location: a folder (its parent is made where missing) or an fsspec URL.
            dataset: the data set's name.
            source: where the data set was read from; remembered for the next run.
            preparation: what was done to the samples; `side_px` is their side in pixels.
            rows: the first samples.

        Raises:
            StoreExists: something is there already.
            StoreAccessError: it cannot be written.
        """
        folder = local_path(location)

        def build(root: zarr.Group) -> None:
            Layout.build(root, dataset, source, preparation)

        with access(str(location), "creating the store"):
            if folder is None:
                create_on_object_store(str(location), build)
            else:
                create_in_folder(folder, build)
        store = cls(location, "r+")
        store.append(rows)
        return store

    # ---- what is in it

    @property
    def dataset(self) -> str:
        """The data set's name."""
        return str(self._layout.attributes["dataset"])

    @property
    def source(self) -> str:
        """Where the data set was read from."""
        return str(self._layout.attributes["source"])

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of figures on this data set has to know, such as images that were left out."""
        return tuple(map(str, self._layout.attributes.get("notes", ())))

    @property
    def preparation(self) -> dict[str, str]:
        """What was done to the samples before they were stored."""
        return dict(self._layout.attributes["preparation"])

    @property
    def n_rows(self) -> int:
        """The number of rows, present or absent."""
        return int(self._layout.attributes["rows"])

    @property
    def table(self) -> tuple[RowInfo, ...]:
        """All rows without their pixels, in order.

        Raises:
            RowDamaged: a description is not what was written; row and id are named.
        """
        if self._bad:
            raise RowDamaged(self.location, "the samples", self._bad)
        return tuple(self._good.values())

    def trusted_rows(self) -> tuple[RowInfo, ...]:
        """As `table`, but rows that cannot be trusted are left out (see `damaged`)."""
        return tuple(self._good.values())

    def info(self, row: int) -> RowInfo:
        """What is known of one row.

        Raises:
            KeyError: there is no such row, or its description cannot be trusted.
        """
        return self._good[row]

    def is_trusted(self, row: int) -> bool:
        """Whether the description of a row can be trusted."""
        return row in self._good

    def has(self, sample_id: str) -> bool:
        """Whether a trusted row has that id."""
        return sample_id in self._rows_by_id

    def row_of(self, sample_id: str) -> int:
        """The row of a sample.

        Raises:
            KeyError: no row has that id.
        """
        return self._rows_by_id[sample_id]

    def read_samples(self, rows: Sequence[int]) -> list[SampleRow]:
        """The samples of rows, each held against its record.

        Raises:
            RowDamaged: a row's pixels or description are not what was written.
        """
        good, bad = self.try_read_samples(rows)
        if bad:
            raise RowDamaged(self.location, "the samples", bad)
        return good

    def try_read_samples(self, rows: Sequence[int]) -> tuple[list[SampleRow], list[BadRow]]:
        """As `read_samples`, but rows that cannot be trusted are returned beside the others."""
        described = [self._good[row] for row in rows if row in self._good]
        undescribed = [bad for bad in self._bad if bad.row in set(rows)]
        unknown = [row for row in rows if not 0 <= row < self.n_rows]
        undescribed += [BadRow(row, "", "the store has no such row") for row in unknown]
        with access(self.location, "reading samples from"):
            good, bad = self._layout.samples.read(described)
        return good, undescribed + bad

    def damaged(self) -> list[BadRow]:
        """The rows whose description cannot be trusted, or whose pixels are known to be damaged without reading them.

        A file of theirs is missing or of another size than was written, or `verify` has read it and found out.
        """
        with access(self.location, "listing"):
            return self._bad + self._layout.samples.damaged(list(self._good.values()))

    def file_bytes(self) -> int:
        """The bytes of the samples' pixel files as noted when they were written."""
        with access(self.location, "reading"):
            return self._layout.samples.recorded_bytes(self.n_rows)

    # ---- embeddings

    def keys(self) -> tuple[Key, ...]:
        """The keys of all embeddings in the store.

        Raises:
            StoreDamaged: a key was changed after it was written.
        """
        with access(self.location, "reading"):
            return tuple(key for key, _ in self._layout.keyed_groups())

    def recorded(self, key: Key) -> dict[str, Any]:
        """What was recorded beside a key when it was made: versions, device, threads; and the stated error."""
        for other, attributes in self._layout.keyed_groups():
            if other.hash == key.hash:
                return {**attributes["recorded"], "error": attributes["error"]}
        return {}

    def views(self, key: Key) -> tuple[str, ...]:
        """The views of a key that have embeddings."""
        with access(self.location, "reading"):
            return self._layout.views(key)

    def find(self, asked: Mapping[str, str], view: str = "identity") -> Key:
        """The one key that answers what is asked.

        Args:
            asked: field -> value; fields that are not asked for may have any value.
            view: the view that must be there.

        Raises:
            EmbeddingNotFound: none does, or several do; the message lists the candidates and how they differ.
        """
        return choose(self.location, {key: self.views(key) for key in self.keys()}, asked, view)

    def embeddings(
        self,
        key: Key,
        view: str = "identity",
        *,
        recorded: Mapping[str, str] | None = None,
        described: Mapping[str, str] | None = None,
        images: bool = False,
    ) -> Embeddings:
        """The embeddings of a key; nothing is read before the first use, nothing is created before the first write.

        Args:
            key: what made them.
            view: `identity`, or the name of an exact view.
            recorded: versions, device and threads, written beside the key when it is created.
            described: everything that decides the pixels of the view's images, sealed with the view when it is created.
                One that is there and was described otherwise is ViewDiffers on first use. None takes what is there.
            images: whether a view that is created keeps the prepared image of each row, its colours being others than
                the sample's. A view that is there keeps what it keeps.

        Raises:
            CacheError: the view's name would not be a folder of its own.
        """
        spec = ViewSpec(self.location, view, int(self.preparation["side_px"]), described, images)
        arrays = EmbeddingArrays(self._layout.embeddings, key, spec, format_named(key.fields["format"]), recorded or {})
        return Embeddings(key, spec, arrays, lambda: self._good, location=self.location, locks=self._locks)

    # ---- other processes

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Be the only process that changes samples, and see them as they are now. Waits for another one."""
        if self._locks is None:
            yield
            return
        with self._locks.acquire(SAMPLES):
            self._load()
            yield

    @contextmanager
    def exclusive_all(self) -> Iterator[None]:
        """Be the only process that writes anything, samples or embeddings. Does not wait.

        Raises:
            StoreAccessError: another one is writing.
        """
        if self._locks is None:
            yield
            return
        with self._locks.try_acquire_all() as held:
            if not held:
                raise StoreAccessError(
                    f"another process is writing to {self.location}. Run the same command again once it has finished."
                )
            yield

    def refresh(self) -> None:
        """See the samples as they are now. `exclusive` does so by itself where it can lock."""
        self._load()

    # ---- writing samples; the caller holds `exclusive`

    def append(self, rows: Sequence[SampleRow]) -> None:
        """Add samples at the end. The number of rows is written last: a killed append has not happened.

        Raises:
            StoreExists: an id is there already, or twice among the new ones.
            UnstorableSample: a sample is not what this store holds; nothing was written.
            StoreAccessError: it cannot be written.
        """
        counts = Counter(row.id for row in rows)
        twice = sorted(name for name, count in counts.items() if count > 1 or name in self._rows_by_id)
        if twice:
            raise StoreExists(f"{self.location} has these ids already, or is given them twice: {twice[:5]}")
        if not rows:
            return
        with access(self.location, "writing samples to"):
            first = self.n_rows
            self._layout.samples.append(first, rows)
            self._layout = self._layout.with_attributes(rows=first + len(rows))
        self._update_rows([sample.info(first + i) for i, sample in enumerate(rows)])

    def replace(self, row: int, sample: SampleRow, *, present: bool = True) -> None:
        """Write one row again: its image or mask changed, or it was damaged. Other rows are not touched.

        Raises:
            StoreExists: another row has that id.
            UnstorableSample: it is not what this store holds; nothing was written.
            StoreAccessError: it cannot be written.
        """
        if self._rows_by_id.get(sample.id, row) != row:
            raise StoreExists(f"{self.location} has {sample.id} in row {self._rows_by_id[sample.id]} already")
        with access(self.location, "writing samples to"):
            self._layout.samples.write(row, [sample], present=present)
        self._update_rows([sample.info(row, present=present)])

    def matches_record(self, row: int, sample: SampleRow) -> bool:
        """Whether a damaged row's record says that it was this sample: then its embeddings are worth keeping."""
        return any(self._layout.samples.matches_record(sample.info(row, present=present)) for present in (True, False))

    def set_present(self, row: int, *, present: bool) -> None:
        """Say whether a row's image is in the data set; an absent one keeps its embeddings and is never trained on."""
        with access(self.location, "writing samples to"):
            self._layout.samples.set_present(self._good[row], present=present)
        self._update_rows([replace(self._good[row], present=present)])

    def invalidate_pixels(self, rows: Sequence[int]) -> None:
        """Say of rows that their pixels are damaged, as reading them has shown: `damaged` tells them from now on."""
        with access(self.location, "writing samples to"):
            for row in rows:
                self._layout.samples.invalidate_pixels(self._good[row])

    def remember_source(self, source: str, notes: Sequence[str] = ()) -> None:
        """Write down where the data set was read from, and what its readers have to know of it."""
        if (source, tuple(notes)) != (self.source, self.notes):
            with access(self.location, "writing"):
                self._layout = self._layout.with_attributes(source=source, notes=list(notes))

    def delete_embeddings(self, key: Key, view: str | None = None) -> None:
        """Delete the embeddings of one key, in one view or in all."""
        self.delete_group(key.hash if view is None else f"{key.hash}/{view}")

    def group_names(self) -> list[str]:
        """Each key by its hash and each of its views as `HASH/VIEW`, those that cannot be read any more too."""
        with access(self.location, "listing"):
            return self._layout.group_names()

    def delete_group(self, name: str) -> None:
        """Delete what has one of these names."""
        delete_group(self._layout.embeddings, name)

    # ---- inside

    def _load(self) -> None:
        self._layout = Layout.open(self.location, self._mode)
        with access(self.location, "reading"):
            good, self._bad = self._layout.samples.describe(self.n_rows)
        self._good = {info.row: info for info in good}
        self._rows_by_id = {info.id: info.row for info in good}

    def _update_rows(self, written: Sequence[RowInfo]) -> None:
        """Hold in memory what was just written."""
        rows = {info.row for info in written}
        self._bad = [bad for bad in self._bad if bad.row not in rows]
        for info in written:
            before = self._good.get(info.row, info)
            self._rows_by_id.pop(before.id, None)
            self._rows_by_id[info.id] = info.row
        last = next(reversed(self._good), -1)
        mended = any(info.row < last and info.row not in self._good for info in written)
        self._good |= {info.row: info for info in written}
        if mended:
            self._good = dict(sorted(self._good.items()))
