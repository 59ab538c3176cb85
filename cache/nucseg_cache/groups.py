"""Create and delete groups of a store completely or not at all, and find what killed processes left behind."""

import asyncio
import glob
import json
import shlex
import shutil
import uuid
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import zarr
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync  # zarr's stores are asynchronous only; this is how zarr itself calls them
from zarr.storage import LocalStore

from nucseg_cache.errors import minimal_embed_command
from nucseg_cache.location import discard

_HEX = "[0-9a-f]" * 32


def create_group(parent: zarr.Group, name: str, build: Callable[[zarr.Group], None]) -> None:
    """Create a group completely or not at all.

    `build` fills it and writes its sealed attributes last. In a folder the group is built under a temporary name and
    then renamed. An object store cannot rename; there, a group without a seal does not count as existing.
    If another process has created the group meanwhile, that group stays.
    """
    folder = group_folder(parent)
    if folder is None:
        build(parent.create_group(name, overwrite=True))
        return
    temporary = temporary_name(name)
    try:
        build(parent.create_group(temporary))
        _rename(folder / temporary, folder / name)
    finally:
        discard(folder / temporary)


def delete_group(parent: zarr.Group, name: str) -> None:
    """Delete a group, at a path relative to a group above it, completely or not at all, even a damaged one.

    In a folder it is renamed first.
    """
    folder = group_folder(parent)
    if folder is None:
        sync(parent.store.delete(_document(parent, name)))
        del parent[name]
        return
    path = folder / name
    temporary = path.with_name(temporary_name(path.name))
    path.rename(temporary)
    if temporary.is_dir() and not temporary.is_symlink():
        shutil.rmtree(temporary)
    else:  # a file or a link in place of the group
        temporary.unlink()


def path_of(group: zarr.Group, name: str = "") -> str:
    """Location of a group, or of its member `name`, for messages."""
    return "/".join(part for part in (_location(group), group.path, name) if part)


def how_to_delete(group: zarr.Group, name: str = "") -> str:
    """How a user deletes a group, or its member `name`, and computes it again, for messages."""
    location = _location(group)
    first, _, key = "/".join(part for part in (group.path, name) if part).partition("/")
    if first == "embeddings" and key:
        return (
            f"delete it with `nucseg cache prune {shlex.quote(location)} --key {key}` and run "
            f"`{minimal_embed_command(location)}` with its encoder"
        )
    return f"delete {location} and run `{minimal_embed_command(location)}`"


def _location(group: zarr.Group) -> str:
    """Folder or URL of the store that a group is in."""
    store = group.store
    return str(store.root) if isinstance(store, LocalStore) else getattr(store, "url", str(store))


def child_names(group: zarr.Group, name: str = "") -> list[str]:
    """The sorted names of the groups in a group, or in its member `name`. Any other name there contains a dot."""
    path = "/".join(part for part in (group.path, name) if part)

    async def listed() -> list[str]:
        return [name async for name in group.store.list_dir(path)]

    return sorted(name for name in sync(listed()) if "." not in name)


def _rename(temporary: Path, final: Path) -> None:
    """Rename a finished folder; a folder that already has the final name stays."""
    try:
        temporary.rename(final)
    except OSError:
        if not final.is_dir():
            raise


def group_folder(group: zarr.Group) -> Path | None:
    """The folder of a group; None on an object store."""
    return group.store.root / group.path if isinstance(group.store, LocalStore) else None


def read_documents(group: zarr.Group, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Read the zarr.json of several members of a group concurrently.

    Raises:
        FileNotFoundError: a zarr.json is missing.
        ValueError: a zarr.json is not JSON.
    """
    read = (group.store.get(_document(group, name), prototype=default_buffer_prototype()) for name in names)
    found = dict(zip(names, run_all(read), strict=True))
    missing = [name for name, content in found.items() if content is None]
    if missing:
        raise FileNotFoundError(f"{missing[0]}/zarr.json")
    return {name: json.loads(content.to_bytes()) for name, content in found.items()}


def write_documents(group: zarr.Group, documents: Mapping[str, Mapping[str, Any]]) -> None:
    """Write the zarr.json of several members of a group concurrently."""
    as_buffer = default_buffer_prototype().buffer.from_bytes
    run_all(
        group.store.set(_document(group, name), as_buffer(json.dumps(document, indent=2).encode()))
        for name, document in documents.items()
    )


def run_all(
    requests: Iterable[Coroutine[Any, Any, Any]], *, tolerated: Callable[[Exception], bool] = lambda error: False
) -> list[Any]:
    """Run requests to a store concurrently and return when all have ended, so that none goes on after an error.

    Returns:
        Their results in order, or the exception of a request that failed with a tolerated error.
    """

    async def all_ended() -> list[Any]:
        return await asyncio.gather(*requests, return_exceptions=True)

    outcomes = sync(all_ended())
    for outcome in outcomes:
        if isinstance(outcome, BaseException) and not (isinstance(outcome, Exception) and tolerated(outcome)):
            raise outcome
    return outcomes


def _document(group: zarr.Group, name: str) -> str:
    return "/".join(part for part in (group.path, name, "zarr.json") if part)


def temporary_name(name: str) -> str:
    """A unique name for an unfinished file or folder that will be renamed to `name`."""
    return f".{name}.{uuid.uuid4().hex}.tmp"


def leftovers_beside(root: Path) -> list[Path]:
    """What killed creations of a store left next to its folder."""
    return list(root.parent.glob(f".{glob.escape(root.name)}.{_HEX}.tmp"))


def leftovers_within(root: Path) -> list[Path]:
    """What killed writers left in a store: unfinished groups, and zarr's partially written files."""
    groups = list(root.rglob(f".*.{_HEX}.tmp"))
    files = [file for file in root.rglob(f"*.{_HEX}.partial") if not any(g in file.parents for g in groups)]
    return groups + files
