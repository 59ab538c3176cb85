"""The arrays of one key and view on disk: created by the first write, extended as samples are added."""

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
    """The arrays of one key and view. A chunk file holds one row of a large array, a block of rows of a small one.

    Shapes:
        values  (N, 256, 64, 64)  one row per chunk file
        image   (N, S, S, 3)      one row; only in views that keep the prepared images
        scale   (N, 256)          a block; only formats i8 and i6
        stored  (N,)              a block; (N, 2) in views with images
        record  (N, 48)           a block
    """

    def __init__(
        self, parent: zarr.Group, key: Key, view: ViewSpec, storage: Format, recorded: Mapping[str, str]
    ) -> None:
        """Describe the arrays in the group `embeddings`; `recorded` is written with a new key. Nothing is read yet."""
        self._parent, self._key, self._view, self._storage = parent, key, view, storage
        self._attributes = {"fields": dict(key.fields), "recorded": dict(recorded), "error": storage.error_bound}
        self._use({})
        self.described: dict[str, str] = {}
        """How the images of the view were made, as sealed with the view; set by `open`."""

    @property
    def has_images(self) -> bool:
        """Whether each row keeps its own prepared image: as on disk, or as requested for a new view."""
        return "image" in self._arrays if self._arrays else self._view.images

    def _names(self, *, images: bool) -> tuple[str, ...]:
        return (*self._files(images=images), *(("scale",) if self._storage.has_scale else ()), "stored", "record")

    @staticmethod
    def _files(*, images: bool) -> tuple[str, ...]:
        """The arrays with one chunk file per row, in the order of the columns of `stored`."""
        return ("values", "image") if images else ("values",)

    @property
    def n_rows(self) -> int:
        """The number of rows that all arrays have; 0 if nothing was written yet."""
        return min((int(array.shape[0]) for array in self._arrays.values()), default=0)

    def open(self, *, reopen: bool = False) -> bool:
        """Open the arrays and check the seals of key and view; returns whether they exist.

        Args:
            reopen: read the metadata again even if the arrays are open.

        Raises:
            StoreDamaged: attributes or array metadata are not what was sealed.
            ViewDiffers: the view was made in another way than the one asked for.
        """
        if self._arrays and not reopen:
            return True
        found = None
        try:
            found = self._sealed()
        finally:  # replaced in one step because other threads may be reading
            attributes, arrays = found or ({}, {})
            self.described = dict(attributes.get("described", {}))
            self._use(arrays)
        return found is not None

    def _sealed(self) -> tuple[dict[str, Any], dict[str, zarr.Array[Any]]] | None:
        """Attributes and arrays of the view as they are on disk now; None if nothing was written yet."""
        group = finished_group(self._parent, self._key.hash)
        view = finished_group(group, self._view.name) if group is not None else None
        if group is None or view is None:
            return None
        if read_sealed(group, ())[0]["fields"] != dict(self._key.fields):
            raise StoreDamaged(
                f"{path_of(group)} holds the embeddings of another key: it was renamed. Restore its name, or "
                f"{how_to_delete(group)}."
            )
        attributes, arrays = read_sealed(view, self._names(images=bool(view.attrs.get("images"))))
        if attributes["view"] != self._view.name:
            raise StoreDamaged(
                f"{path_of(view)} holds the view {attributes['view']}: it was renamed. Restore its name, or "
                f"{how_to_delete(view)}."
            )
        self._view.check_attributes(attributes, self._key.hash)
        return attributes, arrays

    def _use(self, arrays: dict[str, zarr.Array[Any]]) -> None:
        self._arrays, self._reader = arrays, Reader(arrays)

    def ensure_arrays(self, n_rows: int, locks: StoreLocks | None) -> None:
        """Create the arrays if they do not exist, and extend them to `n_rows` rows."""
        if self.open() and self.n_rows >= n_rows:
            return
        with locks.acquire(shape_slot(self._key.hash)) if locks else nullcontext():
            group = self._created(self._parent, self._key.hash, lambda new: write_sealed(new, self._attributes, ()))
            view = self._created(group, self._view.name, self._create)
            self.open(reopen=True)  # another writer may have extended them
            self._use(grow_arrays(view, tuple(self._arrays), n_rows))

    def rows(self, name: str, where: slice) -> npt.NDArray[Any]:
        """Rows of `stored` or `record`; zeros, which match no row, if a block cannot be decoded."""
        return self._reader.rows_or_zeros(name, where)

    def undecodable(self, name: str) -> list[slice]:
        """The rows of each block of `stored` or `record` that cannot be decoded, one slice per block."""
        return self._reader.undecodable(name, self.n_rows) if self._arrays else []

    def allocate(self, n_rows: int, *, values: npt.NDArray[Any] | None = None) -> Stored:
        """Allocate arrays to read `n_rows` rows into; `values` is used for the values if given."""
        side_px = self._view.side_px
        return Stored(
            np.empty((n_rows, *EMBEDDING_SHAPE), self._storage.dtype) if values is None else values,
            np.empty((n_rows, EMBEDDING_SHAPE[0]), np.float32) if self._storage.has_scale else None,
            np.empty((n_rows, side_px, side_px, 3), np.uint8) if self.has_images else None,
        )

    def read(self, row: int, into: Stored) -> None:
        """Read one row in its storage format into arrays of one row; codecs raise various errors on damaged bytes."""
        named = {"values": into.values, "scale": into.scale, "image": into.images}
        self._reader.row_into(row, {name: array[0] for name, array in named.items() if array is not None})

    def write(self, row: int, stored: Stored) -> None:
        """Write one row of every array except `stored` and `record`."""
        self._arrays["values"][row] = stored.values[0]
        if stored.scale is not None:
            write_rows(self._arrays["scale"], row, stored.scale)
        if stored.images is not None:
            self._arrays["image"][row] = stored.images[0]

    def write_small(self, name: str, first: int, values: npt.NDArray[np.generic]) -> None:
        """Write consecutive rows of `stored` or `record`."""
        write_rows(self._arrays[name], first, values)

    def file_bytes(self, rows: Sequence[int]) -> npt.NDArray[np.int64]:
        """The present sizes of the rows' files, 0 for a missing one, in the shape of rows of `stored`."""
        names = self._files(images=self.has_images)
        sizes = np.array([stored_bytes(self._arrays[name], rows) for name in names], np.int64).T
        return sizes if len(names) > 1 else sizes[:, 0]

    @staticmethod
    def _created(parent: zarr.Group, name: str, build: Any) -> zarr.Group:
        """The group of that name, created if it does not exist."""
        if finished_group(parent, name) is None:
            create_group(parent, name, build)
        group = finished_group(parent, name)
        if group is None:
            raise StoreDamaged(f"{path_of(parent, name)} is not a finished group: {how_to_delete(parent, name)}.")
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
