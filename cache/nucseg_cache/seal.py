"""The seal of a group: a digest over its attributes and the metadata of its arrays.

Zarr reads whatever an edited `zarr.json` tells it: another data type, another fill value, other codecs. The seal
makes such an edit an error. It is taken over the documents as they are on disk, not over what zarr makes of them, so
that another version of zarr, or a reader in another language, comes to the same digest. The number of rows is left
out, because it grows.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import xxhash
import zarr
from zarr.storage import LocalStore

from nucseg_cache.arrays import open_array
from nucseg_cache.errors import StoreDamaged
from nucseg_cache.groups import how_to_delete, read_documents, path_of

SEAL = "seal"


def write_sealed(group: zarr.Group, attributes: Mapping[str, Any], arrays: Sequence[str]) -> None:
    """Write a group's attributes with their seal, in one write; call it after the arrays were made."""
    documents = read_documents(group, arrays) if arrays else {}
    group.attrs.put({**attributes, SEAL: _digest(attributes, documents)})


def is_sealed(group: zarr.Group) -> bool:
    """Whether the group was finished: the seal is the last thing written."""
    return SEAL in group.attrs


def finished_group(parent: zarr.Group, name: str) -> zarr.Group | None:
    """The group of that name; None where there is none, or on an object store one that is still being made.

    Raises:
        StoreDamaged: its metadata cannot be read; or, in a folder, where groups appear whole, it has no seal.
    """
    try:
        group = parent.get(name)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # zarr fails in many ways on edited metadata; each of them means the same
        raise StoreDamaged(_message(parent, name, f"zarr.json is unreadable ({error})")) from error
    if not isinstance(group, zarr.Group):
        return None
    if is_sealed(group):
        return group
    if isinstance(group.store, LocalStore):
        raise StoreDamaged(_message(parent, name, "the seal is missing"))
    return None


def read_sealed(group: zarr.Group, arrays: Sequence[str]) -> tuple[dict[str, Any], dict[str, zarr.Array[Any]]]:
    """The attributes of a group, without the seal, and its arrays, once it is certain that they are as written.

    Raises:
        StoreDamaged: an attribute or an array's metadata was changed, or an array is missing.
    """
    attributes = dict(group.attrs)
    seal = attributes.pop(SEAL, None)
    try:
        documents = read_documents(group, arrays) if arrays else {}
        found = _digest(attributes, documents)
        # the number of rows, which is not sealed, may be anything
        opened = {name: open_array(group, name, document) for name, document in documents.items() if seal == found}
    except MemoryError:
        raise
    except Exception as error:  # an edited document is no object, has no shape, or none that zarr takes
        if isinstance(error, OSError) and not isinstance(error, FileNotFoundError):
            raise
        raise StoreDamaged(_message(group, "", f"an array's metadata is missing or unreadable ({error})")) from error
    if seal != found:
        raise StoreDamaged(_message(group, "", f"they have digest {found}, sealed was {seal}"))
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
        f"{reason}. Nothing is read from it. Restore the zarr.json files from a copy, or {how_to_delete(group, name)}."
    )
