"""The integrity walk over a store, the clearing of bad rows, and pruning."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
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
    found = [(group, group.there()) for group in groups]
    total = store.n_rows + sum(len(rows) for _, rows in found)
    findings = _bad_samples(store, lambda done: progress(done, total), clear=clear)
    seen = store.n_rows
    for group, infos in found:
        bad = {one.row: one for one in group.unsound()}
        for first in range(0, len(infos), BLOCK_ROWS):
            rows = [info.row for info in infos[first : first + BLOCK_ROWS]]
            bad |= {one.row: one for one in _unreadable(group, rows)}
            progress(seen + first + len(rows), total)
        seen += len(infos)
        still_bad = _cleared(group, bad) if clear and bad else list(bad.values())
        findings += [Finding(f"{group.key.hash}/{group.view}", one) for one in still_bad]
    return Verification(store.n_rows, seen - store.n_rows, tuple(findings), clear)


def _bad_samples(store: Store, progress: Callable[[int], None], *, clear: bool) -> list[Finding]:
    bad = {one.row: one for one in store.damaged()}
    for first in range(0, store.n_rows, BLOCK_ROWS):
        rows = range(first, min(first + BLOCK_ROWS, store.n_rows))
        bad |= {one.row: one for one in store.try_read_samples(rows)[1]}
        progress(rows.stop)
    if clear and bad:
        with store.exclusive():  # which reads the descriptions anew: another process may have written the rows since
            bad = {one.row: one for one in [*store.damaged(), *store.try_read_samples(sorted(bad))[1]]}
            store.distrust([row for row in sorted(bad) if store.describes(row)])
    return [Finding("samples", bad[row]) for row in sorted(bad)]


def _unreadable(group: Embeddings, rows: Sequence[int]) -> list[BadRow]:
    """Read a few rows one by one, so that memory stays small."""
    room = group.room(1)
    return [bad for row in rows for bad in group.try_read_stored([row], out=room)[1]]


def _cleared(group: Embeddings, bad: Mapping[int, BadRow]) -> list[BadRow]:
    """Clear the records of bad rows under their block's lock; returns those that are still bad then."""
    still_bad: list[BadRow] = []
    for block in group.blocks():
        inside = [row for row in sorted(bad) if row in block]
        if inside:
            with group.claim(block, wait=True):
                # another process may have been writing them when they were read
                unsound = {one.row: one for one in group.unsound() if one.row in inside}
                confirmed = {**unsound, **{one.row: one for one in _unreadable(group, inside)}}
                group.clear(sorted(confirmed))
            still_bad += [confirmed[row] for row in sorted(confirmed)]
    return still_bad


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
    with access(str(location), "pruning"), store.alone():
        for name in sorted(set(keys), key=len, reverse=True):  # views before the keys that they belong to
            store.delete_group(name)
        rubbish = [*leftovers_beside(folder), *leftovers_within(folder)] if folder is not None else []
        for path in rubbish:
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
    return Pruning(tuple(keys), len(rubbish))
