"""Bring the samples of a store up to date with its data set: new, changed, damaged, vanished and returned images."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from nucseg.data import DataSet, Entry, prepare
from nucseg.data.mask_notes import is_mask_note, mask_notes
from nucseg.data.masks import MaskFacts
from nucseg.errors import DataError
from nucseg_cache import BLOCK_ROWS, BadRow, RowInfo, SampleRow, Store
from nucseg_pipeline.embed.decoded_images import DecodedImages
from nucseg_pipeline.loading.batches import READ_ROWS, batches
from nucseg_pipeline.loading.inspection import caution, caution_notes, ignored_note, is_caution_note
from nucseg_pipeline.progress import Progress

_PENDING = "Not all masks have been looked at, because a run was stopped. Run `nucseg embed` again."
"""Note in the store while masks are read; what was found in them is known only at the end."""

READERS = max(4, min(16, os.cpu_count() or 1))
"""Threads that read images; hashing, decoding and resizing release the interpreter lock."""


@dataclass
class SyncResult:
    """How the data set differed from the store. An image that cannot be used does not stop the others."""

    n_images: int = 0
    """Images of the data set, up to the limit that was asked for."""
    new: int = 0
    changed: int = 0
    repaired: int = 0
    """Damaged rows that were written again."""
    vanished: int = 0
    returned: int = 0
    failures: dict[str, str] = field(default_factory=dict)
    """Id -> why its image or its masks cannot be used."""
    cautions: dict[str, str] = field(default_factory=dict)
    """Id -> why an image that was read by this call cannot be scored or does not look like H&E."""
    mask_facts: dict[str, MaskFacts] = field(default_factory=dict)
    """Id -> what was found in its masks, of the images that were read."""
    after_stop: bool = False
    """Whether an earlier call was stopped while it read masks."""

    @property
    def makes_notes_stale(self) -> bool:
        """Whether the store's notes on its masks and images may no longer be true."""
        return self.after_stop or any((self.new, self.changed, self.repaired, self.vanished, self.returned))


def sync_samples(
    store: Store, dataset: DataSet, entries: Sequence[Entry], progress: Progress, decoded: DecodedImages | None = None
) -> SyncResult:
    """Make the store's samples those of the data set; call it inside `store.exclusive()`.

    Rows are only added, or written again in place. Digests of file contents decide what has changed. A new image is
    read and decoded once: its digest is of the bytes that its sample was made from.

    Args:
        store: opened for writing.
        dataset: as it is on disk now.
        entries: those of its entries that were asked for, in order.
        progress: called after each image.
        decoded: keeps the native images that were decoded.

    Raises:
        DataError: the store belongs to another data set.
        StoreAccessError: the store cannot be written.
    """
    damaged = store.damaged()
    bad_rows = {row.row for row in damaged}
    good = {info.id: info for info in store.trusted_rows() if info.row not in bad_rows}
    _refuse_another(store, dataset, good)
    result = SyncResult(n_images=len(entries), after_stop=_PENDING in store.notes)
    samples = _SampleReader(result, decoded or DecodedImages(0))
    digests = _digests([entry for entry in entries if entry.id in good], result, progress)
    _mark_vanished(store, dataset, good, result)
    unknown = [entry for entry in entries if entry.id not in good]
    differing = (
        good[id_] for id_, found in digests.items() if (good[id_].image_digest, good[id_].mask_digest) != found
    )
    if not result.after_stop and (damaged or unknown or any(differing)):
        store.remember_source(store.source, (*store.notes, _PENDING))
    rewritten = _rewrite_damaged(store, damaged, unknown, samples, give_up=len(entries) == len(dataset.entries))
    for entry in entries:
        if entry.id in digests:
            _update(store, good[entry.id], entry, digests[entry.id], samples)
    _append(store, [entry for entry in unknown if entry.id not in rewritten], samples, progress)
    return result


def notes_on_masks(store: Store, dataset: DataSet, result: SyncResult, progress: Progress) -> tuple[str, ...]:
    """The notes on the masks of all images in the store, also beyond a limit, after `sync_samples`.

    A store keeps notes, not the facts that they sum up. If images have changed and there is anything to note, or if an
    earlier call was stopped, the masks that this call did not read are read for this.
    """
    before = tuple(note for note in store.notes if is_mask_note(note))
    is_notable = bool(before) or any(facts != MaskFacts() for facts in result.mask_facts.values())
    if not (result.makes_notes_stale and (is_notable or result.after_stop)):
        return before

    def facts_on(entry: Entry) -> MaskFacts | None:
        try:
            return result.mask_facts.get(entry.id) or entry.read_mask_facts()
        except DataError:
            return None

    entries = [entry for entry in dataset.entries if store.has(entry.id) and entry.id not in result.failures]
    found: dict[str, MaskFacts] = {}
    with _reader_threads() as pool:
        for done, (entry, facts) in enumerate(zip(entries, pool.map(facts_on, entries), strict=True), 1):
            found |= {} if facts is None else {entry.id: facts}
            progress(done, len(entries), "looking at masks")
    return mask_notes(found)


def notes_on_images(store: Store, result: SyncResult, progress: Progress) -> tuple[str, ...]:
    """The notes on images of the store that do not look like H&E or are ignored, after `sync_samples`.

    As for masks, the images that this call did not read are looked at if there is a need; those in the store do.
    """
    before = tuple(note for note in store.notes if is_caution_note(note))
    if not (result.makes_notes_stale and (before or result.cautions or result.after_stop)):
        return before
    present = [info for info in store.trusted_rows() if info.present]
    cautions = {info.id: result.cautions.get(info.id, "") for info in present}
    others = [info.row for info in present if info.id not in result.mask_facts]
    done = 0
    for rows in batches(others, READ_ROWS):
        cautions |= {sample.id: caution(sample) for sample in store.try_read_samples(rows)[0]}
        done += len(rows)
        progress(done, len(others), "looking at images")
    return (*caution_notes(cautions, len(cautions)), *ignored_note(cautions, len(cautions)))


class _SampleReader:
    """Reads and prepares samples, keeps their decoded images, and records which cannot be used."""

    def __init__(self, result: SyncResult, decoded: DecodedImages) -> None:
        self.result, self._decoded = result, decoded

    def read(self, entry: Entry) -> SampleRow | None:
        """The prepared sample; None if its image or its masks cannot be used. Threads may call it."""
        try:
            sample, image_digest, mask_digest = entry.read()
        except DataError as error:
            self.result.failures[entry.id] = str(error)
            return None
        try:
            prepared = prepare(sample.image, sample.instances, sample.ignore)
        except DataError as error:  # it knows the arrays, but not which image they are from
            self.result.failures[entry.id] = f"{entry.id}: {error}"
            return None
        self.result.mask_facts[entry.id] = sample.mask_facts
        self._decoded.keep(entry.id, image_digest, sample.image)
        row = SampleRow(
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
        if why := caution(row):
            self.result.cautions[entry.id] = why
        return row


@contextmanager
def _reader_threads() -> Iterator[ThreadPoolExecutor]:
    """Threads that finish what they have begun, and begin nothing more, after an interrupt or an error."""
    pool = ThreadPoolExecutor(READERS)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _refuse_another(store: Store, dataset: DataSet, good: dict[str, RowInfo]) -> None:
    """A wrong folder must not mark every image of a store as vanished."""
    if good and not any(entry.id in good for entry in dataset.entries):
        raise DataError(
            f"{store.location} holds {len(good)} images of {store.source or store.dataset}, and none of them is among "
            f"the {len(dataset.entries)} images of {dataset.source or dataset.name}. If this is another data set, give "
            "it a name of its own with --dataset; if the old one is no longer needed, delete its store."
        )


def _digests(entries: Sequence[Entry], result: SyncResult, progress: Progress) -> dict[str, tuple[bytes, bytes]]:
    """Id -> digests of the entries that can be read."""

    def digests(entry: Entry) -> tuple[bytes, bytes] | DataError:
        try:
            return entry.digests()
        except DataError as error:
            return error

    found: dict[str, tuple[bytes, bytes]] = {}
    with _reader_threads() as pool:
        for done, (entry, outcome) in enumerate(zip(entries, pool.map(digests, entries), strict=True), 1):
            if isinstance(outcome, DataError):
                result.failures[entry.id] = str(outcome)
            else:
                found[entry.id] = outcome
            progress(done, len(entries), "comparing with the store")
    return found


def _mark_vanished(store: Store, dataset: DataSet, good: dict[str, RowInfo], result: SyncResult) -> None:
    """Mark rows whose image is gone or can no longer be read, so that nothing is trained on them."""
    readable = {entry.id for entry in dataset.entries} - set(result.failures)
    for info in good.values():
        if info.present and info.id not in readable:
            store.set_present(info.row, present=False)
            result.vanished += info.id not in result.failures


def _update(store: Store, info: RowInfo, entry: Entry, digests: tuple[bytes, bytes], samples: _SampleReader) -> None:
    """Bring the row of a known image up to date."""
    stored = (info.image_digest, info.mask_digest, info.group, info.stratum, info.mpp)
    if stored != (*digests, entry.group, entry.stratum, entry.mpp):
        sample = samples.read(entry)
        if sample is None:
            store.set_present(info.row, present=False)
        else:
            store.replace(info.row, sample)
            samples.result.changed += 1
    elif not info.present:
        store.set_present(info.row, present=True)
        samples.result.returned += 1


def _rewrite_damaged(
    store: Store, damaged: Sequence[BadRow], entries: Sequence[Entry], samples: _SampleReader, *, give_up: bool
) -> set[str]:
    """Write damaged rows again, each from the image that it was made from; returns the ids of these images.

    A row is recognised by its record, else by its id if that is legible. A row that is not recognised becomes a
    placeholder, marked absent, and its image is added at the end. Without `give_up`, where only some of the images were
    asked for, it is left as it is: its image may be among the others.
    """
    if not damaged:
        return set()
    found = {sample.id: sample for sample in map(samples.read, entries) if sample is not None}
    used: set[str] = set()
    for bad in {bad.row: bad for bad in damaged}.values():
        candidates = [sample for sample in found.values() if sample.id not in used]
        sample = next((sample for sample in candidates if store.matches_record(bad.row, sample)), None)
        sample = sample or next((sample for sample in candidates if sample.id == bad.id), None)
        if sample is None and not give_up:
            continue
        store.replace(bad.row, sample or _placeholder(store, bad.row), present=sample is not None)
        used |= {sample.id} if sample else set()
        samples.result.repaired += 1
    return used


def _append(store: Store, entries: Sequence[Entry], samples: _SampleReader, progress: Progress) -> None:
    """Add new samples one block of rows at a time, so that a killed run keeps what it has added."""
    done = 0
    with _reader_threads() as pool:
        for block in _blocks(entries, store.n_rows):
            rows = []
            for sample in pool.map(samples.read, block):
                rows += [sample] if sample is not None else []
                done += 1
                progress(done, len(entries), "preparing new images")
            store.append(rows)
            samples.result.new += len(rows)


def _blocks(entries: Sequence[Entry], n_rows: int) -> Iterator[Sequence[Entry]]:
    """Split where the store's blocks end, so that no chunk file is written twice."""
    first = 0
    while first < len(entries):
        room = BLOCK_ROWS - (n_rows + first) % BLOCK_ROWS
        yield entries[first : first + room]
        first += room


def _placeholder(store: Store, row: int) -> SampleRow:
    """The content of a row whose image can no longer be identified; never present."""
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
