"""The seal of a group: a digest over its attributes and the metadata of its arrays.

Zarr follows an edited `zarr.json`: it reads with another data type, fill value or codec without any error. The seal
turns such an edit into an error. It covers the JSON documents as they are on disk, not zarr's interpretation, so that
another version of zarr or a reader in another language gets the same digest. The number of rows is excluded, because it
grows.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import xxhash
import zarr
from zarr.storage import LocalStore

from nucseg_cache.arrays import open_array
from nucseg_cache.errors import StoreDamaged
from nucseg_cache.groups import how_to_delete, path_of, read_documents

SEAL = "seal"


def write_sealed(group: zarr.Group, attributes: Mapping[str, Any], arrays: Sequence[str]) -> None:
    """Write a group's attributes with their seal in one write, after its arrays were created."""
    documents = read_documents(group, arrays) if arrays else {}
    group.attrs.put({**attributes, SEAL: _digest(attributes, documents)})


def is_sealed(group: zarr.Group) -> bool:
    """Whether the group is finished: the seal is written last."""
    return SEAL in group.attrs


def finished_group(parent: zarr.Group, name: str) -> zarr.Group | None:
    """The group of that name; None if there is none, or if it is still being created on an object store.

    Raises:
        StoreDamaged: its metadata cannot be read, or it has no seal in a folder, where groups appear complete.
    """
    try:
        group = parent.get(name)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # zarr raises errors of many types on edited metadata
        raise StoreDamaged(_message(parent, name, f"zarr.json is unreadable ({error})")) from error
    if not isinstance(group, zarr.Group):
        return None
    if is_sealed(group):
        return group
    if isinstance(group.store, LocalStore):
        raise StoreDamaged(_message(parent, name, "the seal is missing"))
    return None


def read_sealed(group: zarr.Group, arrays: Sequence[str]) -> tuple[dict[str, Any], dict[str, zarr.Array[Any]]]:
    """The attributes of a group, without the seal, and its arrays, after checking the seal.

    Raises:
        StoreDamaged: an attribute or an array's metadata was changed, or an array is missing.
    """
    attributes = dict(group.attrs)
    seal = attributes.pop(SEAL, None)
    try:
        documents = read_documents(group, arrays) if arrays else {}
        found = _digest(attributes, documents)
        # opening may fail even so: the number of rows is not sealed
        opened = {name: open_array(group, name, document) for name, document in documents.items() if seal == found}
    except MemoryError:
        raise
    except Exception as error:  # an edited document may not be an object, or lack a valid shape
        if isinstance(error, OSError) and not isinstance(error, FileNotFoundError):
            raise
        raise StoreDamaged(_message(group, "", f"an array's metadata is missing or unreadable ({error})")) from error
    if seal != found:
        raise StoreDamaged(_message(group, "", f"their digest is {found}, the seal is {seal}"))
    return attributes, opened


def _digest(attributes: Mapping[str, Any], documents: Mapping[str, Mapping[str, Any]]) -> str:
    arrays = {name: {**document, "shape": document["shape"][1:]} for name, document in documents.items()}
    text = json.dumps(
        {"attributes": dict(attributes), "arrays": arrays}, sort_keys=True, separators=(",", ":"), ensure_ascii=False
    )
    return xxhash.xxh3_128_hexdigest(text.encode())


def _message(group: zarr.Group, name: str, reason: str) -> str:
    return (
        f"the attributes or array metadata of {path_of(group, name)} were changed after they were written: "
        f"{reason}. Restore the zarr.json files from a copy, or {how_to_delete(group, name)}."
    )
