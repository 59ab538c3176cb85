"""Bring the samples of a store to what the data set is now: new, changed, damaged, vanished, returned."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from nucseg.data import DataSet, Entry, Prepared, prepare
from nucseg.errors import DataError
from nucseg_cache import BLOCK_ROWS, BadRow, RowInfo, SampleRow, Store
from nucseg_pipeline.progress import Progress

READERS = max(4, min(16, os.cpu_count() or 1))
"""Threads that read and decode; hashing, decoding and resizing let go of the interpreter lock."""


@dataclass
class SyncResult:
    """What the data set and the store differed in. Failures are told at the end; they stop nothing else."""

    n_images: int = 0
    """Images of the data set, as far as they were asked for."""
    new: int = 0
    changed: int = 0
    mended: int = 0
    """Rows that were damaged and were written again."""
    vanished: int = 0
    returned: int = 0
    failures: dict[str, str] = field(default_factory=dict)
    """Id -> why its image or its masks cannot be used."""


def sync_samples(store: Store, dataset: DataSet, entries: Sequence[Entry], progress: Progress) -> SyncResult:
    """Make the store's samples those of the data set; call it inside `store.exclusive()`.

    Rows are only ever added or written again in place. Digests of file contents decide what has changed.

    Args:
        store: opened for writing.
        dataset: as it is on disk now.
        entries: those of its entries that were asked for, in order.
        progress: called after each image.

    Raises:
        DataError: the store is of quite another data set.
        StoreAccessError: the store cannot be written.
    """
    damaged = store.damaged()
    good = {info.id: info for info in _described(store, damaged)}
    _refuse_another(store, dataset, good)
    result = SyncResult(n_images=len(entries))
    digests = _digests(entries, result, progress)
    _mark_vanished(store, dataset, good, result)
    candidates = [entry for entry in entries if entry.id in digests and entry.id not in good]
    to_mend = _rewrite_damaged(store, damaged, candidates, result, give_up=len(entries) == len(dataset.entries))
    new: list[Entry] = []
    for entry in entries:
        info = good.get(entry.id)
        if entry.id not in digests or entry.id in to_mend:
            continue
        if info is None:
            new.append(entry)
        elif _differs(info, entry, digests[entry.id]):
            _replace(store, info.row, entry, result)
        elif not info.present:
            store.set_present(info.row, present=True)
            result.returned += 1
    _append(store, new, result, progress)
    return result


@contextmanager
def _readers() -> Iterator[ThreadPoolExecutor]:
    """Threads that, where the block is left by an interrupt or an error, end what they have begun and begin no more."""
    pool = ThreadPoolExecutor(READERS)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _described(store: Store, damaged: Sequence[BadRow]) -> list[RowInfo]:
    bad = {row.row for row in damaged}
    return [info for info in store.trusted_rows() if info.row not in bad]


def _refuse_another(store: Store, dataset: DataSet, good: dict[str, RowInfo]) -> None:
    """A store filled from another folder must not be emptied because someone mixed up two names."""
    if good and not any(entry.id in good for entry in dataset.entries):
        raise DataError(
            f"{store.location} holds {len(good)} images of {store.source or store.dataset}, and none of them is among "
            f"the {len(dataset.entries)} images of {dataset.source or dataset.name}. If this is another data set, give "
            "it a name of its own with --dataset; if the old one is no longer wanted, delete its store."
        )


def _digests(entries: Sequence[Entry], result: SyncResult, progress: Progress) -> dict[str, tuple[bytes, bytes]]:
    """Id -> digests of the entries that can be read."""

    def digests(entry: Entry) -> tuple[bytes, bytes] | DataError:
        try:
            return entry.digests()
        except DataError as error:
            return error

    found: dict[str, tuple[bytes, bytes]] = {}
    with _readers() as pool:
        for done, (entry, outcome) in enumerate(zip(entries, pool.map(digests, entries), strict=True), 1):
            if isinstance(outcome, DataError):
                result.failures[entry.id] = str(outcome)
            else:
                found[entry.id] = outcome
            progress(done, len(entries), "comparing with the store")
    return found


def _mark_vanished(store: Store, dataset: DataSet, good: dict[str, RowInfo], result: SyncResult) -> None:
    """Mark rows whose image is gone, or can no longer be read: they must not be trained on."""
    there = {entry.id for entry in dataset.entries} - set(result.failures)
    for info in good.values():
        if info.present and info.id not in there:
            store.set_present(info.row, present=False)
            result.vanished += info.id not in result.failures


def _differs(info: RowInfo, entry: Entry, digests: tuple[bytes, bytes]) -> bool:
    described = (info.image_digest, info.mask_digest, info.group, info.stratum, info.mpp)
    return described != (*digests, entry.group, entry.stratum, entry.mpp)


def _replace(store: Store, row: int, entry: Entry, result: SyncResult) -> None:
    sample = _prepared_or_failed(entry, result)
    if sample is None:
        store.set_present(row, present=False)
        return
    store.replace(row, sample)
    result.changed += 1


def _rewrite_damaged(
    store: Store, damaged: Sequence[BadRow], entries: Sequence[Entry], result: SyncResult, *, give_up: bool
) -> set[str]:
    """Write damaged rows again, each from the image it was made from; returns the ids that were used.

    A row is recognised by its record, else by the id that is still legible. One that is neither is given up: it stays,
    marked absent, and its image is added anew at the end. Without `give_up`, where only some of the images were asked
    for, it is left as it is: its image may be among the others.
    """
    if not damaged:
        return set()
    samples = {s.id: s for s in (_prepared_or_failed(entry, result) for entry in entries) if s is not None}
    used: set[str] = set()
    for bad in {bad.row: bad for bad in damaged}.values():
        candidates = [s for s in samples.values() if s.id not in used]
        sample = next((s for s in candidates if store.matches_record(bad.row, s)), None)
        sample = sample or next((s for s in candidates if s.id == bad.id), None)
        if sample is None and not give_up:
            continue
        store.replace(bad.row, sample or _placeholder(store, bad.row), present=sample is not None)
        used |= {sample.id} if sample else set()
        result.mended += 1
    return used


def _append(store: Store, entries: Sequence[Entry], result: SyncResult, progress: Progress) -> None:
    """Add new samples, a block of rows at a time: what a killed run has added stays."""
    done = 0
    with _readers() as pool:
        for block in _blocks(entries, store.n_rows):
            rows = pool.map(lambda entry: _prepared_or_failed(entry, result), block)
            samples = []
            for sample in rows:
                samples += [sample] if sample is not None else []
                done += 1
                progress(done, len(entries), "preparing new images")
            store.append(samples)
            result.new += len(samples)


def _blocks(entries: Sequence[Entry], n_rows: int) -> Iterator[Sequence[Entry]]:
    """Cut where the store's blocks end, so that no chunk file is written twice."""
    first = 0
    while first < len(entries):
        room = BLOCK_ROWS - (n_rows + first) % BLOCK_ROWS
        yield entries[first : first + room]
        first += room


def _prepared_or_failed(entry: Entry, result: SyncResult) -> SampleRow | None:
    try:
        sample, image_digest, mask_digest = entry.read()
    except DataError as error:
        result.failures[entry.id] = str(error)
        return None
    try:
        prepared = prepare(sample.image, sample.instances, sample.ignore)
    except DataError as error:  # knows arrays, and not whose they are
        result.failures[entry.id] = f"{entry.id}: {error}"
        return None
    return _row(entry, prepared, image_digest, mask_digest)


def _row(entry: Entry, prepared: Prepared, image_digest: bytes, mask_digest: bytes) -> SampleRow:
    return SampleRow(
        id=entry.id,
        group=entry.group,
        stratum=entry.stratum,
        mpp=entry.mpp,
        size=prepared.size,
        image=prepared.image,
        instances=prepared.instances,
        ignore=prepared.ignore,
        image_digest=image_digest,
        mask_digest=mask_digest,
    )


def _placeholder(store: Store, row: int) -> SampleRow:
    """What stands in a row that nobody can recognise any more; never present."""
    side_px = int(store.preparation["side_px"])
    return SampleRow(
        id=f"(lost row {row})",
        group="",
        stratum="",
        mpp=None,
        size=(0, 0),
        image=np.zeros((side_px, side_px, 3), np.uint8),
        instances=np.zeros((side_px, side_px), np.int32),
        ignore=np.ones((side_px, side_px), np.bool_),
        image_digest=bytes(32),
        mask_digest=bytes(32),
    )
