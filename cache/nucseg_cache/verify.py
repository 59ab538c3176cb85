"""The integrity walk over a store, the clearing of bad rows, and pruning."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from nucseg_cache.arrays import BLOCK_ROWS
from nucseg_cache.embeddings import Embeddings
from nucseg_cache.errors import BadRow, EmbeddingNotFound, access
from nucseg_cache.groups import leftovers_beside, leftovers_within
from nucseg_cache.location import local_path
from nucseg_cache.store import Store


@dataclass(frozen=True)
class Finding:
    """One bad row and where it is."""

    what: str
    """`samples`, or the key's hash and the view."""
    bad: BadRow


@dataclass(frozen=True)
class Verification:
    """What the walk saw."""

    n_samples: int
    n_embeddings: int
    """Embeddings read, over all keys and views."""
    findings: tuple[Finding, ...]
    cleared: bool
    """Whether the records of what is bad were taken away, so that the next `embed` makes it anew."""


def verify(
    location: str | Path,
    *,
    clear: bool = True,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Verification:
    """Read everything in a store and hold it against its records.

    Args:
        location: the store.
        clear: take away the records of bad embeddings, and what vouches for the pixels of bad samples, so that the next
            `embed` makes them anew.
        progress: called with (rows read, rows to read).

    Raises:
        StoreNotFound, StoreFormatError, StoreDamaged, StoreAccessError: see `Store.open`.
    """
    store = Store.open(location, mode="r+" if clear else "r")
    keys = store.keys()
    groups = [store.embeddings(key, view) for key in keys for view in store.views(key)]
    found = [(group, group.embedded_rows()) for group in groups]
    n_samples = store.n_rows
    total = n_samples + sum(len(rows) for _, rows in found)
    findings = _bad_samples(store, n_samples, lambda done: progress(done, total), clear=clear)
    seen = n_samples
    for group, infos in found:
        suspects = {one.row for one in _damaged_without_reading(group)}
        for first in range(0, len(infos), BLOCK_ROWS):
            rows = [info.row for info in infos[first : first + BLOCK_ROWS]]
            suspects |= {one.row for one in _unreadable(group, rows)}
            progress(seen + first + len(rows), total)
        seen += len(infos)
        bad = _confirmed(store, group, suspects, clear=clear)
        findings += [Finding(f"{group.key.hash}/{group.view}", one) for one in bad]
    return Verification(n_samples, seen - n_samples, tuple(findings), clear)


def _bad_samples(store: Store, n_rows: int, progress: Callable[[int], None], *, clear: bool) -> list[Finding]:
    suspects = {one.row for one in store.damaged()}
    for first in range(0, n_rows, BLOCK_ROWS):
        rows = range(first, min(first + BLOCK_ROWS, n_rows))
        suspects |= {one.row for one in store.try_read_samples(rows)[1]}
        progress(rows.stop)
    if not suspects:
        return []
    with store.exclusive():  # another process may have been writing them
        store.refresh()
        bad = {one.row: one for one in [*store.damaged(), *store.try_read_samples(sorted(suspects))[1]]}
        if clear:
            store.invalidate_pixels([row for row in sorted(bad) if store.is_trusted(row)])
    return [Finding("samples", bad[row]) for row in sorted(bad)]


def _confirmed(store: Store, group: Embeddings, suspects: Collection[int], *, clear: bool) -> list[BadRow]:
    """Those that are bad under their block's lock too; their records are cleared where that is asked for."""
    bad: list[BadRow] = []
    for block in group.blocks():
        inside = [row for row in sorted(suspects) if row in block]
        if inside:
            # another process may have been writing them, or their samples, when they were read
            with group.claim(block, wait=True), store.exclusive():
                store.refresh()
                there = {info.row for info in group.embedded_rows()}
                damaged = [one for one in _damaged_without_reading(group) if one.row in inside]
                unreadable = _unreadable(group, [row for row in inside if row in there])
                confirmed = {one.row: one for one in [*damaged, *unreadable]}
                if clear:
                    group.clear(sorted(confirmed))
            bad += [confirmed[row] for row in sorted(confirmed)]
    return bad


def _damaged_without_reading(group: Embeddings) -> list[BadRow]:
    try:
        return group.damaged()
    except EmbeddingNotFound:  # `prune` has deleted them since
        return []


def _unreadable(group: Embeddings, rows: Sequence[int]) -> list[BadRow]:
    """Read a few rows one by one, so that memory stays small."""
    try:
        room = group.allocate(1)
    except EmbeddingNotFound:  # as above
        return []
    return [bad for row in rows for bad in group.try_read_stored([row], out=room)[1]]


@dataclass(frozen=True)
class Pruning:
    """What was taken away."""

    keys: tuple[str, ...]
    n_leftovers: int


def prune(location: str | Path, *, keys: Sequence[str] = ()) -> Pruning:
    """Delete embeddings by the hash of their key, and what killed processes left behind.

    Args:
        location: the store, in a folder.
        keys: what to delete: a key by its hash, with all its views, or one view as `HASH/VIEW`; nothing else is ever
            deleted.

    Raises:
        EmbeddingNotFound: a key or a view that the store does not have; nothing was deleted.
        StoreAccessError: it cannot be written, or another process is writing to it: what looks left behind may be its.
    """
    store = Store.open(location, mode="r+")
    there = store.group_names()
    unknown = sorted(set(keys) - set(there))
    if unknown:
        raise EmbeddingNotFound(f"{location} has no embeddings {', '.join(unknown)}; it has {', '.join(sorted(there))}")
    folder = local_path(location)
    with access(str(location), "pruning"), store.exclusive_all():
        for name in sorted(set(keys), key=len, reverse=True):  # views before the keys that they belong to
            store.delete_group(name)
        rubbish = [*leftovers_beside(folder), *leftovers_within(folder)] if folder is not None else []
        for path in rubbish:
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
    return Pruning(tuple(keys), len(rubbish))
