"""The top level of a store on disk: sealed root attributes, the samples, and the embeddings by key."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import zarr
from zarr.core.group import GroupMetadata

from nucseg_cache.arrays import BLOCK_ROWS
from nucseg_cache.errors import StoreDamaged, StoreFormatError, access
from nucseg_cache.groups import child_names, how_to_delete, path_of, write_documents
from nucseg_cache.key import Key
from nucseg_cache.location import Mode, root_of
from nucseg_cache.samples import ARRAYS, Samples, create_arrays
from nucseg_cache.seal import finished_group, is_sealed, read_sealed, write_sealed

FORMAT = 1
"""The version of the format on disk that this package reads and writes."""

_SAMPLE_ARRAYS = tuple(f"samples/{name}" for name in ARRAYS)


@dataclass(frozen=True)
class Layout:
    """An open store."""

    root: zarr.Group
    samples: Samples
    embeddings: zarr.Group
    attributes: Mapping[str, Any]

    @classmethod
    def build(cls, root: zarr.Group, dataset: str, source: str, preparation: Mapping[str, str]) -> None:
        """Fill the empty root group of a new store. The seal is written last."""
        create_arrays(root.create_group("samples"), int(preparation["side_px"]))
        root.create_group("embeddings")
        attributes = {"format": FORMAT, "dataset": dataset, "source": source, "preparation": dict(preparation),
                      "block_rows": BLOCK_ROWS, "rows": 0, "complete": True}  # fmt: skip
        write_sealed(root, attributes, _SAMPLE_ARRAYS)

    @classmethod
    def open(cls, location: str | Path, mode: Mode) -> Layout:
        """Open a store and check its root seal; raises as `Store.open` does."""
        root = root_of(location, mode)
        _check_format(str(location), root)
        with access(str(location), "reading"):
            attributes, arrays = read_sealed(root, _SAMPLE_ARRAYS)
            samples = Samples(_part(root, "samples", mode), {name: arrays[f"samples/{name}"] for name in ARRAYS})
            layout = cls(root, samples, _part(root, "embeddings", mode), attributes)
        name, n_rows = layout.samples.shortest
        if n_rows < attributes["rows"]:
            raise StoreDamaged(
                f"{location} has {n_rows} rows in samples/{name}, expected {attributes['rows']}. Restore the zarr.json "
                f"files from a copy, or {how_to_delete(root)}."
            )
        return layout

    def with_attributes(self, **changed: Any) -> Layout:
        """Write changed root attributes, and return the store with them."""
        attributes = {**self.attributes, **changed}
        write_sealed(self.root, attributes, _SAMPLE_ARRAYS)
        return replace(self, attributes=attributes)

    def keyed_groups(self) -> Iterator[tuple[Key, dict[str, Any]]]:
        """Each key with the attributes of its group.

        Raises:
            StoreDamaged: a key's attributes were changed after they were written.
        """
        for name in child_names(self.embeddings):
            group = finished_group(self.embeddings, name)
            if group is None:
                continue  # still being created
            attributes, _ = read_sealed(group, ())
            key = Key(attributes["fields"])
            if key.hash != name:
                raise StoreDamaged(
                    f"{path_of(group)} holds the key of {key.hash}: it was renamed. Restore that name, or "
                    f"{how_to_delete(group)}."
                )
            yield key, attributes

    def group_names(self) -> list[str]:
        """All keys as `HASH` and all views as `HASH/VIEW`, including damaged ones."""
        keys = child_names(self.embeddings)
        return [*keys, *(f"{key}/{view}" for key in keys for view in child_names(self.embeddings, key))]

    def views(self, key: Key) -> tuple[str, ...]:
        """The views of a key that have embeddings."""
        group = finished_group(self.embeddings, key.hash)
        if group is None:
            return ()
        return tuple(name for name in child_names(group) if finished_group(group, name) is not None)


def _part(root: zarr.Group, name: str, mode: Mode) -> zarr.Group:
    """Open the group `samples` or `embeddings`.

    Their zarr.json files carry no information and are not sealed. A lost or edited one does not prevent reading, and is
    rewritten when the store is opened for writing.
    """
    try:
        return zarr.open_group(root.store_path / name, mode=mode, zarr_format=3, use_consolidated=False)
    except Exception as error:  # zarr raises errors of many types on edited metadata
        if isinstance(error, (OSError, MemoryError)) and not isinstance(error, FileNotFoundError):
            raise
    group = zarr.Group(zarr.AsyncGroup(GroupMetadata(), root.store_path / name))
    if mode == "r+":
        write_documents(root, {name: group.metadata.to_dict()})
    return group


def _check_format(location: str, root: zarr.Group) -> None:
    found = root.attrs.get("format")
    if found is None or not is_sealed(root):
        raise StoreFormatError(
            f"{location} is a zarr group but not a finished store of nucseg: it has no "
            f"{'format number' if found is None else 'seal'}. Name the right cache with --cache, or "
            f"{how_to_delete(root)}."
        )
    if found != FORMAT:
        raise StoreFormatError(
            f"{location} has format {found}, this nucseg reads format {FORMAT}. Use the nucseg that wrote it, or "
            "embed the data set again in another cache (--cache)."
        )
