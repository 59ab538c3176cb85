"""The arrays of one key and one view as they lie in the store: made by the first write, grown with the samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr

from nucseg_cache.arrays import BLOCK_ROWS, create_array, grow_arrays, write_rows
from nucseg_cache.errors import StoreDamaged
from nucseg_cache.formats import EMBEDDING_SHAPE, Format, Stored
from nucseg_cache.groups import create_group, how_to_delete, path_of
from nucseg_cache.key import Key
from nucseg_cache.location import stored_bytes
from nucseg_cache.locks import StoreLocks, shape_slot
from nucseg_cache.reading import Reader
from nucseg_cache.seal import finished_group, read_sealed, write_sealed
from nucseg_cache.views import ViewSpec

RECORD_BYTES = 48


class EmbeddingArrays:
    """The arrays: some hold one row in a chunk file, the small ones a block of rows.

    Shapes:
        values  (N, 256, 64, 64)  one row
        image   (N, S, S, 3)      one row; in views that keep the prepared images
        scale   (N, 256)          a block; formats i8 and i6
        stored  (N,)              a block; (N, 2) beside images
        record  (N, 48)           a block
    """

    def __init__(
        self, parent: zarr.Group, key: Key, view: ViewSpec, storage: Format, recorded: Mapping[str, str]
    ) -> None:
        """Name the place; nothing is read or created.

        Args:
            parent: the store's group `embeddings`.
            key: what made the embeddings.
            view: which view, and what a new one is to hold.
            storage: how they are stored.
            recorded: written beside the key when its group is made.
        """
        self._parent, self._key, self._view, self._storage = parent, key, view, storage
        self._attributes = {"fields": dict(key.fields), "recorded": dict(recorded), "error": storage.error_bound}
        self._use({})
        self.described: dict[str, str] = {}
        """How the images of the view were made, as sealed with it; read by `open`."""

    @property
    def has_images(self) -> bool:
        """Whether each row keeps a prepared image of its own: as on disk, or as a new view is to be."""
        return "image" in self._arrays if self._arrays else self._view.images

    def _names(self, *, images: bool) -> tuple[str, ...]:
        return (*self._files(images=images), *(("scale",) if self._storage.has_scale else ()), "stored", "record")

    @staticmethod
    def _files(*, images: bool) -> tuple[str, ...]:
        """The arrays of one chunk file a row, in the order of the columns of `stored`."""
        return ("values", "image") if images else ("values",)

    @property
    def n_rows(self) -> int:
        """The rows that all arrays have, 0 where nothing was written yet."""
        return min((int(array.shape[0]) for array in self._arrays.values()), default=0)

    def open(self, *, anew: bool = False) -> bool:
        """Whether the arrays exist; opens them once, or anew, and checks the seals of key and view.

        Raises:
            StoreDamaged: attributes or array metadata are not what was sealed.
            ViewDiffers: the view was made in another way than the one asked for.
        """
        if self._arrays and not anew:
            return True
        found = None
        try:
            found = self._sealed()
        finally:  # in one step, because other threads may be reading
            attributes, arrays = found or ({}, {})
            self.described = dict(attributes.get("described", {}))
            self._use(arrays)
        return found is not None

    def _sealed(self) -> tuple[dict[str, Any], dict[str, zarr.Array[Any]]] | None:
        """Attributes and arrays of the view as they are on disk now; None where nothing was written yet."""
        group = finished_group(self._parent, self._key.hash)
        view = finished_group(group, self._view.name) if group is not None else None
        if group is None or view is None:
            return None
        if read_sealed(group, ())[0]["fields"] != dict(self._key.fields):
            raise StoreDamaged(
                f"{path_of(group)} holds the embeddings of another key: it was renamed. Give it its name back, or "
                f"{how_to_delete(group)}."
            )
        attributes, arrays = read_sealed(view, self._names(images=bool(view.attrs.get("images"))))
        if attributes["view"] != self._view.name:
            raise StoreDamaged(
                f"{path_of(view)} holds the view {attributes['view']}: it was renamed. Give it its name back, or "
                f"{how_to_delete(view)}."
            )
        self._view.check_attributes(attributes, self._key.hash)
        return attributes, arrays

    def _use(self, arrays: dict[str, zarr.Array[Any]]) -> None:
        self._arrays, self._reader = arrays, Reader(arrays)

    def ensure_arrays(self, n_rows: int, locks: StoreLocks | None) -> None:
        """Make the arrays where they do not exist, and room for all rows of the store."""
        if self.open() and self.n_rows >= n_rows:
            return
        with locks.acquire(shape_slot(self._key.hash)) if locks else nullcontext():
            group = self._created(self._parent, self._key.hash, lambda made: write_sealed(made, self._attributes, ()))
            view = self._created(group, self._view.name, self._create)
            self.open(anew=True)  # another writer may have made more room
            self._use(grow_arrays(view, tuple(self._arrays), n_rows))

    def rows(self, name: str, where: slice) -> npt.NDArray[Any]:
        """Rows of `stored` or `record`; zeros, which vouch for nothing, where a block cannot be decoded."""
        return self._reader.rows_or_zeros(name, where)

    def undecodable(self, name: str) -> list[slice]:
        """The rows of each block of `stored` or `record` that cannot be decoded."""
        return self._reader.undecodable(name, self.n_rows) if self._arrays else []

    def allocate(self, n_rows: int, *, values: npt.NDArray[Any] | None = None) -> Stored:
        """Arrays into which that many rows can be read; the values in the given array."""
        side_px = self._view.side_px
        return Stored(
            np.empty((n_rows, *EMBEDDING_SHAPE), self._storage.dtype) if values is None else values,
            np.empty((n_rows, EMBEDDING_SHAPE[0]), np.float32) if self._storage.has_scale else None,
            np.empty((n_rows, side_px, side_px, 3), np.uint8) if self.has_images else None,
        )

    def read(self, row: int, into: Stored) -> None:
        """Read one row as it lies on disk into arrays of one row; raises whatever a codec makes of damaged bytes."""
        named = {"values": into.values, "scale": into.scale, "image": into.images}
        self._reader.row_into(row, {name: array[0] for name, array in named.items() if array is not None})

    def write(self, row: int, stored: Stored) -> None:
        """Write everything of one row but `stored` and the record."""
        self._arrays["values"][row] = stored.values[0]
        if stored.scale is not None:
            write_rows(self._arrays["scale"], row, stored.scale)
        if stored.images is not None:
            self._arrays["image"][row] = stored.images[0]

    def write_small(self, name: str, first: int, values: npt.NDArray[np.generic]) -> None:
        """Write consecutive rows of `stored` or `record`."""
        write_rows(self._arrays[name], first, values)

    def file_bytes(self, rows: Sequence[int]) -> npt.NDArray[np.int64]:
        """The sizes of the rows' files as they are now, 0 where there is none, in the shape of rows of `stored`."""
        names = self._files(images=self.has_images)
        sizes = np.array([stored_bytes(self._arrays[name], rows) for name in names], np.int64).T
        return sizes if len(names) > 1 else sizes[:, 0]

    @staticmethod
    def _created(parent: zarr.Group, name: str, build: Any) -> zarr.Group:
        """The group of that name, created where it is not there."""
        if finished_group(parent, name) is None:
            create_group(parent, name, build)
        group = finished_group(parent, name)
        if group is None:
            raise StoreDamaged(
                f"{path_of(parent, name)} is something else than a finished group: {how_to_delete(parent, name)}."
            )
        return group

    def _create(self, view: zarr.Group) -> None:
        lossless, images = self._storage.compressor, self._view.images
        create_array(view, "values", EMBEDDING_SHAPE, self._storage.dtype, chunk_rows=1, compressor=lossless)
        if images:
            create_array(view, "image", (self._view.side_px, self._view.side_px, 3), "uint8", chunk_rows=1)
        if self._storage.has_scale:
            create_array(view, "scale", EMBEDDING_SHAPE[:1], "float32", chunk_rows=BLOCK_ROWS)
        n_files = len(self._files(images=images))
        create_array(view, "stored", (n_files,) if n_files > 1 else (), "int64", chunk_rows=BLOCK_ROWS)
        create_array(view, "record", (RECORD_BYTES,), "uint8", chunk_rows=BLOCK_ROWS)
        write_sealed(view, self._view.attributes, self._names(images=images))
