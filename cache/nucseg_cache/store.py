"""The store: the samples of one data set and their embeddings by key. ../README.md gives its rules."""

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
from nucseg_cache.errors import BadRow, RowDamaged, StoreAccessError, StoreExists, access
from nucseg_cache.formats import format_named
from nucseg_cache.groups import delete_group
from nucseg_cache.key import Key, choose
from nucseg_cache.layout import Layout
from nucseg_cache.location import Mode, local_path
from nucseg_cache.locks import ALL, SAMPLES, StoreLocks
from nucseg_cache.rows import RowInfo, SampleRow
from nucseg_cache.views import ViewSpec


class Store:
    """Everything cached for one data set with one preparation. Use `Store.open` or `Store.create`."""

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
        """Open a store for reading (`r`) or writing (`r+`).

        Raises:
            StoreNotFound: there is no store.
            StoreFormatError: it has another format version, or is not a store of nucseg.
            StoreDamaged: attributes or array metadata were changed after they were written.
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
        """Create a store and add the rows.

        Args:
            location: a folder (missing parents are created) or an fsspec URL.
            dataset: the data set's name.
            source: where the data set was read from.
            preparation: what was done to the samples; `side_px` is their side in pixels.
            rows: the first samples.

        Raises:
            StoreExists: the location is not empty.
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

    # ---- content

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
        """Remarks that apply to every result on this data set, such as images that were left out."""
        return tuple(map(str, self._layout.attributes.get("notes", ())))

    @property
    def preparation(self) -> dict[str, str]:
        """What was done to the samples before they were stored."""
        return dict(self._layout.attributes["preparation"])

    @property
    def n_rows(self) -> int:
        """The number of rows, including those absent from the data set."""
        return int(self._layout.attributes["rows"])

    @property
    def table(self) -> tuple[RowInfo, ...]:
        """The descriptions of all rows, in order.

        Raises:
            RowDamaged: a description does not match its record; the message names row and id.
        """
        if self._bad:
            raise RowDamaged(self.location, "the samples", self._bad)
        return tuple(self._good.values())

    def trusted_rows(self) -> tuple[RowInfo, ...]:
        """As `table`, but without rows whose description is damaged (see `damaged`)."""
        return tuple(self._good.values())

    def info(self, row: int) -> RowInfo:
        """The description of one row.

        Raises:
            KeyError: there is no such row, or its description is damaged.
        """
        return self._good[row]

    def is_trusted(self, row: int) -> bool:
        """Whether the description of a row is intact."""
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
        """Read samples and verify each against its record.

        Raises:
            RowDamaged: pixels or description of a row do not match its record.
        """
        good, bad = self.try_read_samples(rows)
        if bad:
            raise RowDamaged(self.location, "the samples", bad)
        return good

    def try_read_samples(self, rows: Sequence[int]) -> tuple[list[SampleRow], list[BadRow]]:
        """As `read_samples`, but returns damaged rows with the reason instead of raising."""
        infos = [self._good[row] for row in rows if row in self._good]
        without_info = [bad for bad in self._bad if bad.row in set(rows)]
        unknown = [row for row in rows if not 0 <= row < self.n_rows]
        without_info += [BadRow(row, "", "the store has no such row") for row in unknown]
        with access(self.location, "reading samples from"):
            good, bad = self._layout.samples.read(infos)
        return good, without_info + bad

    def damaged(self) -> list[BadRow]:
        """The rows with a damaged description, or with pixels known to be damaged without reading them.

        Pixels are known to be damaged if a file is missing or has another size, or if `verify` found the damage.
        """
        with access(self.location, "listing"):
            return self._bad + self._layout.samples.damaged(list(self._good.values()))

    def file_bytes(self) -> int:
        """The bytes of the samples' pixel files as recorded when they were written."""
        with access(self.location, "reading"):
            return self._layout.samples.recorded_bytes(self.n_rows)

    # ---- embeddings

    def keys(self) -> tuple[Key, ...]:
        """The keys of all embeddings in the store.

        Raises:
            StoreDamaged: a key's attributes were changed after they were written.
        """
        with access(self.location, "reading"):
            return tuple(key for key, _ in self._layout.keyed_groups())

    def recorded(self, key: Key) -> dict[str, Any]:
        """What was recorded when a key was created: versions, device, threads; and the storage format's error bound."""
        for other, attributes in self._layout.keyed_groups():
            if other.hash == key.hash:
                return {**attributes["recorded"], "error": attributes["error"]}
        return {}

    def views(self, key: Key) -> tuple[str, ...]:
        """The views of a key that have embeddings."""
        with access(self.location, "reading"):
            return self._layout.views(key)

    def find(self, asked: Mapping[str, str], view: str = "identity", *, command: str = "") -> Key:
        """Return the only key that matches the request.

        Args:
            asked: field -> value; other fields may have any value.
            view: the view that the key must have.
            command: what makes such embeddings, for the message; by default as far as the request tells it.

        Raises:
            EmbeddingNotFound: none or several match; the message lists the candidates and how they differ.
        """
        return choose(self.location, {key: self.views(key) for key in self.keys()}, asked, view, command)

    def embeddings(
        self,
        key: Key,
        view: str = "identity",
        *,
        recorded: Mapping[str, str] | None = None,
        described: Mapping[str, str] | None = None,
        images: bool = False,
    ) -> Embeddings:
        """The embeddings of a key. The first use reads the metadata, the first write creates the arrays.

        Args:
            key: identifies the embeddings.
            view: `identity`, or the name of an exact view.
            recorded: versions, device and threads, written with the key when it is created.
            described: everything that determines the pixels of the view's images, sealed with the view when it is
                created. The first use raises ViewDiffers if the store's view has another description. None accepts any.
            images: whether a new view keeps the prepared image of each row, because its colours differ from the
                sample's. Ignored for an existing view, unless `described` is given; then they must agree.

        Raises:
            CacheError: the view's name is not valid.
        """
        spec = ViewSpec(self.location, view, int(self.preparation["side_px"]), described, images)
        arrays = EmbeddingArrays(self._layout.embeddings, key, spec, format_named(key.fields["format"]), recorded or {})
        return Embeddings(key, spec, arrays, lambda: self._good, location=self.location, locks=self._locks)

    # ---- other processes

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold the lock on the samples, and reload them. Waits while another process holds the lock."""
        if self._locks is None:
            yield
            return
        with self._locks.acquire(SAMPLES):
            self._load()
            yield

    @contextmanager
    def exclusive_all(self) -> Iterator[None]:
        """Hold all locks, so that no other process writes samples or embeddings. Does not wait.

        Raises:
            StoreAccessError: another process is writing.
        """
        if self._locks is None:
            yield
            return
        with self._locks.try_acquire(ALL) as acquired:
            if not acquired:
                raise StoreAccessError(
                    f"another process is writing to {self.location}. Run the same command again once it has finished."
                )
            yield

    def refresh(self) -> None:
        """Reload the samples. `exclusive` does so too, except on an object store."""
        self._load()

    # ---- writing samples; the caller must hold `exclusive`

    def append(self, rows: Sequence[SampleRow]) -> None:
        """Add samples at the end. The number of rows is written last, so that a killed append has no effect.

        Raises:
            StoreExists: an id is in the store already, or twice among the new ones.
            UnstorableSample: a sample does not fit this store; nothing was written.
            StoreAccessError: it cannot be written.
        """
        counts = Counter(row.id for row in rows)
        repeated = sorted(name for name, count in counts.items() if count > 1 or name in self._rows_by_id)
        if repeated:
            raise StoreExists(f"ids are in {self.location} already, or occur twice among the new ones: {repeated[:5]}")
        if not rows:
            return
        with access(self.location, "writing samples to"):
            first = self.n_rows
            self._layout.samples.append(first, rows)
            self._layout = self._layout.with_attributes(rows=first + len(rows))
        self._update_rows([sample.info(first + i) for i, sample in enumerate(rows)])

    def replace(self, row: int, sample: SampleRow, *, present: bool = True) -> None:
        """Rewrite one row because its image or mask changed or it was damaged. Other rows are not touched.

        Raises:
            StoreExists: another row has that id.
            UnstorableSample: the sample does not fit this store; nothing was written.
            StoreAccessError: it cannot be written.
        """
        if self._rows_by_id.get(sample.id, row) != row:
            raise StoreExists(f"{self.location} already has {sample.id} in row {self._rows_by_id[sample.id]}")
        with access(self.location, "writing samples to"):
            self._layout.samples.write(row, [sample], present=present)
        self._update_rows([sample.info(row, present=present)])

    def matches_record(self, row: int, sample: SampleRow) -> bool:
        """Whether a row's record was made from this sample. If so, the row's embeddings stay valid."""
        return any(self._layout.samples.matches_record(sample.info(row, present=present)) for present in (True, False))

    def set_present(self, row: int, *, present: bool) -> None:
        """Set whether a row's image is in the data set. An absent row keeps its embeddings but is never trained on."""
        with access(self.location, "writing samples to"):
            self._layout.samples.set_present(self._good[row], present=present)
        self._update_rows([replace(self._good[row], present=present)])

    def invalidate_pixels(self, rows: Sequence[int]) -> None:
        """Record that the pixels of rows are damaged, so that `damaged` lists them without reading."""
        with access(self.location, "writing samples to"):
            for row in rows:
                self._layout.samples.invalidate_pixels(self._good[row])

    def remember_source(self, source: str, notes: Sequence[str] = ()) -> None:
        """Store where the data set was read from, and the notes on it."""
        if (source, tuple(notes)) != (self.source, self.notes):
            with access(self.location, "writing"):
                self._layout = self._layout.with_attributes(source=source, notes=list(notes))

    def group_names(self) -> list[str]:
        """All keys as `HASH` and all views as `HASH/VIEW`, including unreadable ones."""
        with access(self.location, "listing"):
            return self._layout.group_names()

    def delete_group(self, name: str) -> None:
        """Delete the key or view with one of the names in `group_names`."""
        delete_group(self._layout.embeddings, name)

    # ---- internal

    def _load(self) -> None:
        self._layout = Layout.open(self.location, self._mode)
        with access(self.location, "reading"):
            good, self._bad = self._layout.samples.describe(self.n_rows)
        self._good = {info.row: info for info in good}
        self._rows_by_id = {info.id: info.row for info in good}

    def _update_rows(self, written: Sequence[RowInfo]) -> None:
        """Update the descriptions in memory after a write."""
        rows = {info.row for info in written}
        self._bad = [bad for bad in self._bad if bad.row not in rows]
        for info in written:
            before = self._good.get(info.row, info)
            self._rows_by_id.pop(before.id, None)
            self._rows_by_id[info.id] = info.row
        last = next(reversed(self._good), -1)
        out_of_order = any(info.row < last and info.row not in self._good for info in written)
        self._good |= {info.row: info for info in written}
        if out_of_order:
            self._good = dict(sorted(self._good.items()))
