"""Verify a store, clear the records of damaged rows, and prune."""

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
    """A damaged row and where it is."""

    what: str
    """`samples`, or the key's hash and the view."""
    bad: BadRow


@dataclass(frozen=True)
class Verification:
    """The result of `verify`."""

    n_samples: int
    n_embeddings: int
    """Embeddings read, over all keys and views."""
    findings: tuple[Finding, ...]
    cleared: bool
    """Whether the records of damaged rows were cleared, so that the next `nucseg embed` repairs them."""


def verify(
    location: str | Path, *, clear: bool = True, progress: Callable[[int, int], None] = lambda done, total: None
) -> Verification:
    """Read every row of a store and verify it against its record.

    Args:
        location: the store.
        clear: clear the records of damaged embeddings and the pixel digests of damaged samples, so that the next
            `nucseg embed` repairs them.
        progress: called with (rows read, rows to read).

    Raises:
        StoreNotFound, StoreFormatError, StoreDamaged, StoreAccessError: see `Store.open`.
    """
    store = Store.open(location, mode="r+" if clear else "r")
    keys = store.keys()
    groups = [store.embeddings(key, view) for key in keys for view in store.views(key)]
    embedded = [(group, group.embedded_rows()) for group in groups]
    n_samples = store.n_rows
    total = n_samples + sum(len(infos) for _, infos in embedded)
    findings = _bad_samples(store, n_samples, lambda done: progress(done, total), clear=clear)
    n_read = n_samples
    for group, infos in embedded:
        suspects = {bad.row for bad in group.damaged()}
        for first in range(0, len(infos), BLOCK_ROWS):
            rows = [info.row for info in infos[first : first + BLOCK_ROWS]]
            suspects |= {bad.row for bad in _unreadable(group, rows)}
            progress(n_read + first + len(rows), total)
        n_read += len(infos)
        confirmed = _confirmed(store, group, suspects, clear=clear)
        findings += [Finding(f"{group.key.hash}/{group.view}", bad) for bad in confirmed]
    return Verification(n_samples, n_read - n_samples, tuple(findings), clear)


def _bad_samples(store: Store, n_rows: int, progress: Callable[[int], None], *, clear: bool) -> list[Finding]:
    suspects = {bad.row for bad in store.damaged()}
    for first in range(0, n_rows, BLOCK_ROWS):
        rows = range(first, min(first + BLOCK_ROWS, n_rows))
        suspects |= {bad.row for bad in store.try_read_samples(rows)[1]}
        progress(rows.stop)
    if not suspects:
        return []
    with store.exclusive():  # another process may have been writing them
        store.refresh()
        confirmed = {bad.row: bad for bad in [*store.damaged(), *store.try_read_samples(sorted(suspects))[1]]}
        if clear:
            store.invalidate_pixels([row for row in sorted(confirmed) if store.is_trusted(row)])
    return [Finding("samples", confirmed[row]) for row in sorted(confirmed)]


def _confirmed(store: Store, group: Embeddings, suspects: Collection[int], *, clear: bool) -> list[BadRow]:
    """The suspects that are still damaged when checked under their block's lock; clears their records if asked."""
    found: list[BadRow] = []
    for block in group.blocks():
        inside = [row for row in sorted(suspects) if row in block]
        if inside:
            # another process may have been writing them, or their samples, when they were read
            with group.claim(block, wait=True), store.exclusive():
                store.refresh()
                embedded = {info.row for info in group.embedded_rows()}
                damaged = [bad for bad in group.damaged() if bad.row in inside]
                unreadable = _unreadable(group, [row for row in inside if row in embedded])
                confirmed = {bad.row: bad for bad in [*damaged, *unreadable]}
                if clear:
                    group.clear(sorted(confirmed))
            found += [confirmed[row] for row in sorted(confirmed)]
    return found


def _unreadable(group: Embeddings, rows: Sequence[int]) -> list[BadRow]:
    """Read rows one at a time into the same buffer."""
    try:
        buffer = group.allocate(1)
    except EmbeddingNotFound:  # deleted by `prune` meanwhile
        return []
    return [bad for row in rows for bad in group.try_read_stored([row], out=buffer)[1]]


@dataclass(frozen=True)
class Pruning:
    """The result of `prune`."""

    keys: tuple[str, ...]
    n_leftovers: int


def prune(location: str | Path, *, keys: Sequence[str] = ()) -> Pruning:
    """Delete the named embeddings, and what killed processes left behind.

    Args:
        location: the store.
        keys: a key with all its views as `HASH`, or one view as `HASH/VIEW`. No other embeddings are deleted.

    Raises:
        EmbeddingNotFound: the store does not have one of the keys or views; nothing was deleted.
        StoreAccessError: the store cannot be written, or another process is writing to it, whose unfinished files look
            like leftovers.
    """
    store = Store.open(location, mode="r+")
    names = store.group_names()
    unknown = sorted(set(keys) - set(names))
    if unknown:
        raise EmbeddingNotFound(f"{location} has no embeddings {', '.join(unknown)}; it has {', '.join(sorted(names))}")
    folder = local_path(location)
    with access(str(location), "pruning"), store.exclusive_all():
        for name in sorted(set(keys), key=len, reverse=True):  # views before the keys that they belong to
            store.delete_group(name)
        leftovers = [*leftovers_beside(folder), *leftovers_within(folder)] if folder is not None else []
        for path in leftovers:
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
    return Pruning(tuple(keys), len(leftovers))
