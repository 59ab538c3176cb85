"""The groups of a store on disk: made whole or not at all, deleted whole or not at all, and what is left of neither."""

from __future__ import annotations

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

from nucseg_cache.location import discard

_HEX = "[0-9a-f]" * 32

_WAIT_S = 20.0
"""The longest that a disk is waited for once the work was given up: Slurm kills 30 seconds after it says so."""


def create_group(parent: zarr.Group, name: str, build: Callable[[zarr.Group], None]) -> None:
    """Create a group so that it is there whole or not at all.

    `build` fills it and writes its sealed attributes last. In a folder the group grows under a temporary name and is
    renamed; on an object store, where nothing can be renamed, a group without its seal does not count as there.
    A group that came into being meanwhile wins.
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
    """Delete a group, damaged or not, so that it is there whole or not at all: in a folder by renaming it first.

    Args:
        parent: a group above it.
        name: its path from there.
    """
    folder = group_folder(parent)
    if folder is None:
        sync(parent.store.delete(_document(parent, name)))
        del parent[name]
        return
    there = folder / name
    temporary = there.with_name(temporary_name(there.name))
    there.rename(temporary)
    if temporary.is_dir() and not temporary.is_symlink():
        shutil.rmtree(temporary)
    else:  # something else has come to stand in its place
        temporary.unlink()


def path_of(group: zarr.Group, name: str = "") -> str:
    """Where a group lies, or what is called `name` in it, for messages."""
    return "/".join(part for part in (_location(group), group.path, name) if part)


def how_to_delete(group: zarr.Group, name: str = "") -> str:
    """What a user does to have `nucseg embed` make anew what is in a group, or in what is called `name` in it."""
    location = _location(group)
    first, _, key = "/".join(part for part in (group.path, name) if part).partition("/")
    if first == "embeddings" and key:
        return f"delete it with `nucseg cache prune {shlex.quote(location)} --key {key}` and run `nucseg embed`"
    return f"delete {location} and run `nucseg embed`"


def _location(group: zarr.Group) -> str:
    """Folder or URL of the store that a group is in."""
    store = group.store
    return str(store.root) if isinstance(store, LocalStore) else getattr(store, "url", str(store))


def child_names(group: zarr.Group, name: str = "") -> list[str]:
    """The names of the groups in a group, or in one of it, in order. All other names there, rubbish too, have a dot."""
    path = "/".join(part for part in (group.path, name) if part)

    async def listed() -> list[str]:
        return [name async for name in group.store.list_dir(path)]

    return sorted(name for name in sync(listed()) if "." not in name)


def _rename(temporary: Path, final: Path) -> None:
    """Give a finished folder its name; one that has it already stays."""
    try:
        temporary.rename(final)
    except OSError:
        if not final.is_dir():
            raise


def group_folder(group: zarr.Group) -> Path | None:
    """The folder of a group, or None on an object store."""
    return group.store.root / group.path if isinstance(group.store, LocalStore) else None


def read_documents(group: zarr.Group, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """What is in the zarr.json of what lies in a group, as it is on disk; asked for all at once.

    Raises:
        FileNotFoundError: there is none.
        ValueError: one is no JSON.
    """
    read = (group.store.get(_document(group, name), prototype=default_buffer_prototype()) for name in names)
    found = dict(zip(names, run_all(read), strict=True))
    missing = [name for name, content in found.items() if content is None]
    if missing:
        raise FileNotFoundError(f"{missing[0]}/zarr.json")
    return {name: json.loads(content.to_bytes()) for name, content in found.items()}


def write_documents(group: zarr.Group, documents: Mapping[str, Mapping[str, Any]]) -> None:
    """Write the zarr.json of what lies in a group."""
    as_buffer = default_buffer_prototype().buffer.from_bytes
    run_all(
        group.store.set(_document(group, name), as_buffer(json.dumps(document, indent=2).encode()))
        for name, document in documents.items()
    )


def run_all(
    requests: Iterable[Coroutine[Any, Any, Any]], *, tolerated: Callable[[Exception], bool] = lambda error: False
) -> list[Any]:
    """Run requests to a store at once, and come back when all of them have ended: none goes on after an error.

    Returns:
        Their results in order; the exception where one failed with what is tolerated.
    """

    async def all_ended() -> list[Any]:
        return await asyncio.gather(*requests, return_exceptions=True)

    outcomes = sync(all_ended())
    for outcome in outcomes:
        if isinstance(outcome, BaseException) and not (isinstance(outcome, Exception) and tolerated(outcome)):
            raise outcome
    return outcomes


def wait_for_requests() -> None:
    """Wait until every request to a store that is under way has ended, but not for ever.

    An interrupt, or an error beside them, leaves requests behind that go on writing.
    """

    async def all_ended() -> None:
        under_way = asyncio.all_tasks() - {asyncio.current_task()}
        if under_way:
            await asyncio.wait(under_way, timeout=_WAIT_S)

    sync(all_ended())


def _document(group: zarr.Group, name: str) -> str:
    return "/".join(part for part in (group.path, name, "zarr.json") if part)


def temporary_name(name: str) -> str:
    """A name for something that is to be called `name` once it is finished."""
    return f".{name}.{uuid.uuid4().hex}.tmp"


def leftovers_beside(root: Path) -> list[Path]:
    """What killed creations left beside a store."""
    return list(root.parent.glob(f".{glob.escape(root.name)}.{_HEX}.tmp"))


def leftovers_within(root: Path) -> list[Path]:
    """What killed writers left in a store: half-made groups, and zarr's half-written files."""
    groups = list(root.rglob(f".*.{_HEX}.tmp"))
    files = [file for file in root.rglob(f"*.{_HEX}.partial") if not any(g in file.parents for g in groups)]
    return groups + files
