"""The arrays of one key and one view as they lie in the store: made by the first write, grown with the samples."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import numpy.typing as npt
import zarr

from nucseg_cache.arrays import BLOCK_ROWS, create_array, grow_arrays, read_together, readable_rows
from nucseg_cache.errors import CacheError, StoreDamaged
from nucseg_cache.formats import EMBEDDING_SHAPE, Format, Stored
from nucseg_cache.groups import create_group
from nucseg_cache.key import Key
from nucseg_cache.locks import StoreLocks, shape_slot
from nucseg_cache.seal import finished_group, read_sealed, write_sealed

RECORD_BYTES = 48


class EmbeddingArrays:
    """values (N, 256, 64, 64), one chunk file a row; scale (N, 256) for i8; stored (N,) and record (N, 48)."""

    def __init__(self, parent: zarr.Group, key: Key, view: str, storage: Format, recorded: Mapping[str, str]) -> None:
        """Name the place; nothing is read or created.

        Args:
            parent: the store's group `embeddings`.
            key: what made the embeddings.
            view: a plain name.
            storage: how they are stored.
            recorded: written beside the key when its group is made.

        Raises:
            CacheError: the view's name would not be a folder of its own.
        """
        if not view or "." in view or "/" in view:
            raise CacheError(f"a view is named by letters, digits and hyphens, for example `identity`; got {view!r}")
        self._parent, self._key, self._view, self._storage = parent, key, view, storage
        self._attributes = {"fields": dict(key.fields), "recorded": dict(recorded), "error": storage.error_bound}
        self._arrays: dict[str, zarr.Array[Any]] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """The arrays of this format."""
        return ("values", *(("scale",) if self._storage.has_scale else ()), "stored", "record")

    def __getitem__(self, name: str) -> zarr.Array[Any]:
        return self._arrays[name]

    @property
    def n_rows(self) -> int:
        """The rows that all arrays have, 0 where nothing was written yet."""
        return min((int(array.shape[0]) for array in self._arrays.values()), default=0)

    def open(self, *, anew: bool = False) -> bool:
        """Whether the arrays exist; opens them once, or anew, and checks the seals of key and view.

        Raises:
            StoreDamaged: attributes or array metadata are not what was sealed.
        """
        if self._arrays and not anew:
            return True
        self._arrays = {}
        group = finished_group(self._parent, self._key.hash)
        view = finished_group(group, self._view) if group is not None else None
        if group is None or view is None:
            return False
        if read_sealed(group, ())[0]["fields"] != dict(self._key.fields):
            raise StoreDamaged(f"{group.store}/{group.path} holds the embeddings of another key; it was renamed.")
        _, self._arrays = read_sealed(view, self.names)
        return True

    def make_room(self, n_rows: int, locks: StoreLocks | None) -> None:
        """Make the arrays where they do not exist, and room for all rows of the store."""
        if self.open() and self.n_rows >= n_rows:
            return
        with locks.hold(shape_slot(self._key.hash)) if locks else nullcontext():
            group = self._made(self._parent, self._key.hash, lambda made: write_sealed(made, self._attributes, ()))
            view = self._made(group, self._view, self._create)
            self.open(anew=True)  # another writer may have made more room
            self._arrays = grow_arrays(view, self.names, n_rows)

    def rows(self, name: str, where: slice) -> npt.NDArray[Any]:
        """Rows of `stored` or `record`; zeros, which vouch for nothing, where a block cannot be decoded."""
        return readable_rows(self._arrays[name], where)

    def stored(self, row: int) -> Stored:
        """One row as it lies on disk; raises whatever a codec makes of damaged bytes."""
        values, *scale = read_together([self._arrays[name] for name in ("values", "scale") if name in self.names], row)
        return Stored(values[None], scale[0][None] if scale else None)

    @staticmethod
    def _made(parent: zarr.Group, name: str, build: Any) -> zarr.Group:
        """The group of that name, created where it is not there."""
        if finished_group(parent, name) is None:
            create_group(parent, name, build)
        group = finished_group(parent, name)
        if group is None:
            raise StoreDamaged(
                f"{parent.store}/{parent.path}/{name} is something else than a finished group. Delete it and run "
                "`nucseg embed`."
            )
        return group

    def _create(self, view: zarr.Group) -> None:
        lossless = self._storage.compressor
        create_array(view, "values", EMBEDDING_SHAPE, self._storage.dtype, chunk_rows=1, compressor=lossless)
        if self._storage.has_scale:
            create_array(view, "scale", EMBEDDING_SHAPE[:1], "float32", chunk_rows=BLOCK_ROWS)
        create_array(view, "stored", (), "int64", chunk_rows=BLOCK_ROWS)
        create_array(view, "record", (RECORD_BYTES,), "uint8", chunk_rows=BLOCK_ROWS)
        write_sealed(view, {"view": self._view}, self.names)
