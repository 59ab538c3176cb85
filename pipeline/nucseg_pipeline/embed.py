"""Stage one: run the frozen encoder over a data set and keep what it returns."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from nucseg.data import DataSet, Entry, stain_identity
from nucseg.data.official import plain_name, stain_of
from nucseg.encoders import Encoder, open_encoder
from nucseg.errors import ConfigError, DataError
from nucseg_cache import BLOCK_ROWS, CacheError, Embeddings, Key, Store, StoreExists, StoreNotFound
from nucseg_cache.formats import format_named
from nucseg_pipeline.config import EmbedConfig, store_location
from nucseg_pipeline.sources import open_source
from nucseg_pipeline.stained import note_of, remember_unchanged, unchanged_in
from nucseg_pipeline.synchronise import Progress, Synchronisation, synchronise

SIDE_PX = 256
"""Side of a prepared sample in pixels."""

NO_ENCODER = "none"
"""In place of an encoder: only the images and masks are brought into the store, for networks without guidance."""

LEAST_BATCH = 2
"""Images given to the encoder at once at least: its guard finds one embedding of two images only side by side."""


@dataclass(frozen=True)
class EmbedResult:
    """What stage one did, and where the result lies."""

    location: str
    key: Key | None
    """Of the embeddings; None where only the images were asked for."""
    synchronised: Synchronisation
    n_encoded: int
    """Images that went through the encoder this time."""
    n_embedded: int
    """Images, of those asked for, that have an embedding now."""
    seconds: float
    """Time of the encoding alone, reading and writing included."""
    notes: tuple[str, ...] = field(default=())
    """What the user should know of the data set and the encoder."""


def embed(config: EmbedConfig, progress: Progress) -> EmbedResult:
    """Bring a store up to date with its data set, and embed what has no embedding yet.

    Reads the data set's folder and the encoder's weights; writes `<cache>/<dataset>.zarr`, or for images whose stain is
    normalised first `<cache>/<dataset>@<stain>.zarr`. What is finished when the stage stops, for whatever reason, is
    kept, and the next call goes on from there.

    Args:
        config: what to embed with what.
        progress: called with (done, total, what).

    Raises:
        NucsegError: the data set, the encoder or an option is not usable; also when some images could not be read,
            after everything else was embedded.
        CacheError: the store cannot be read or written.
    """
    format_named(config.format)
    store, dataset = _open(config)
    entries = dataset.entries[: config.limit]
    with store.exclusive():
        changes = synchronise(store, dataset, entries, progress)
        if not changes.failures:  # a damaged copy must not become where the next call looks
            store.remember_source(dataset.source, (*dataset.notes, *note_of(unchanged_in(store.notes))))
    remember_unchanged(store, entries)
    if config.encoder == NO_ENCODER:
        notes = (*dataset.notes, *note_of(unchanged_in(store.notes)))
        return _told(EmbedResult(store.location, None, changes, 0, 0, 0.0, notes))
    # after the samples, so that a wrong folder is told before seconds are spent on weights
    encoder = open_encoder(
        config.encoder, weights=config.weights, device=config.device, precision=config.precision,
        threads=config.threads, batch_size=config.batch_size,
    )  # fmt: skip
    key = Key({**encoder.identity, "format": config.format})
    embeddings = store.embeddings(key, recorded={**encoder.provenance, "note": encoder.note})
    wanted = {store.row_of(entry.id): entry for entry in entries if store.has(entry.id)}
    started = time.perf_counter()
    n_encoded = _encode_missing(embeddings, encoder, store, wanted, changes, progress)
    seconds = time.perf_counter() - started
    n_embedded = len(wanted.keys() - set(embeddings.missing()))
    notes = (*dataset.notes, *note_of(unchanged_in(store.notes)), *((encoder.note,) if encoder.note else ()))
    return _told(EmbedResult(store.location, key, changes, n_encoded, n_embedded, seconds, notes))


def _told(result: EmbedResult) -> EmbedResult:
    """The result, unless some images could not be used: that is an error, after everything else was done."""
    if result.synchronised.failures:
        raise DataError(_failed(result))
    return result


def _open(config: EmbedConfig) -> tuple[Store, DataSet]:
    """The store, created where it is not there, and the data set it is filled from."""
    location = store_location(config.cache, config.dataset)
    preparation = {"side_px": str(SIDE_PX), **stain_identity(stain_of(config.dataset))}
    try:
        store = _opened(location, preparation)
        return store, open_source(config.dataset, config.source, store.source)
    except StoreNotFound:
        pass
    dataset = open_source(config.dataset, config.source, _source_of_original(config))  # before anything is created
    try:
        created = Store.create(location, dataset=config.dataset, source=dataset.source, preparation=preparation)
    except StoreExists as exists:
        try:
            created = _opened(location, preparation)  # another process was faster
        except StoreNotFound:
            raise exists from None  # something is there, but no store
    return created, dataset


def _opened(location: str, preparation: Mapping[str, str]) -> Store:
    """The store that is there, whose images must be prepared like those that would be added to it."""
    store = Store.open(location, mode="r+")
    if {"stain": "none", **store.preparation} != preparation:
        raise ConfigError(
            f"{location} holds {store.dataset} prepared as {store.preparation}, and images prepared as "
            f"{dict(preparation)} do not go with them. Take another --cache, or move this store away; if its images "
            "are those that are meant, name it DATASET@STAIN.zarr after their data set and stain."
        )
    return store


def _source_of_original(config: EmbedConfig) -> str:
    """Where the images lie by the store that has them as they are; empty where it does not help."""
    try:
        return Store.open(store_location(config.cache, plain_name(config.dataset))).source
    except CacheError:
        return ""


def _encode_missing(
    embeddings: Embeddings,
    encoder: Encoder,
    store: Store,
    wanted: dict[int, Entry],
    changes: Synchronisation,
    progress: Progress,
) -> int:
    """Encode the wanted rows that are missing, block by block; returns how many were encoded.

    Blocks that another process owns are left to it at first. At the end they are waited for, and looked at again: that
    process may have died.
    """
    missing = [row for row in embeddings.missing(sizes=True) if row in wanted]
    total, done, n_encoded = len(missing), 0, 0
    n_missing = Counter(row // BLOCK_ROWS for row in missing)
    blocks = [block for block in embeddings.blocks() if n_missing[block.start // BLOCK_ROWS]]
    left: list[range] = []
    for wait in (False, True):
        for block in blocks if not wait else left:
            if wait:
                progress(done, total, "waiting for another process that embeds into this store")
            with embeddings.claim(block, wait=wait) as owned:
                if not owned:
                    left.append(block)
                    continue
                rows = [row for row in embeddings.missing(block, sizes=True) if row in wanted]
                done += n_missing[block.start // BLOCK_ROWS] - len(rows)  # done by another process meanwhile
                for batch in _batches(rows, max(encoder.batch_size, LEAST_BATCH)):
                    n_encoded += _encode(embeddings, encoder, store, {row: wanted[row] for row in batch}, changes)
                    done += len(batch)
                    progress(done, total, "encoding")
    return n_encoded


def _encode(
    embeddings: Embeddings, encoder: Encoder, store: Store, batch: dict[int, Entry], changes: Synchronisation
) -> int:
    """Encode and store one batch; images that changed or broke since they were prepared are told, not used."""
    images = {}
    for row, entry in batch.items():
        try:
            image, digest = entry.read_image()
        except DataError as error:
            changes.failures[entry.id] = str(error)
            continue
        if digest == store.info(row).image_digest:
            images[row] = image
        else:
            changes.failures[entry.id] = f"{entry.id} was changed while it was being embedded; run the command again."
    if images:
        remember_unchanged(store, [batch[row] for row in images])  # first, so that a kill loses none
        embeddings.write(list(images), encoder.encode(list(images.values())))
    return len(images)


def _batches(rows: Sequence[int], size: int) -> list[Sequence[int]]:
    return [rows[first : first + size] for first in range(0, len(rows), size)]


def _vanished(result: EmbedResult) -> str:
    n_vanished = result.synchronised.vanished
    if not n_vanished:
        return ""
    return (
        f"{n_vanished} more that the store holds are not in this folder, and are not used from now on. If it is not "
        "the folder that is meant, name the right one with --source: they come back without being encoded again.\n"
    )


def _n_done(result: EmbedResult) -> str:
    if result.key is None:
        return f"{result.synchronised.n_images - len(result.synchronised.failures)} are"
    return f"{result.n_embedded} are embedded"


def _failed(result: EmbedResult) -> str:
    failures = result.synchronised.failures
    shown = "".join(f"\n  {reason}" for reason in list(failures.values())[:8])
    more = f"\n  and {len(failures) - 8} more" if len(failures) > 8 else ""
    return (
        f"{len(failures)} of {result.synchronised.n_images} images could not be used:{shown}{more}\n{_vanished(result)}"
        f"The other {_n_done(result)} in {result.location}. Mend or take away the files, and run the "
        "command again: it encodes only what is missing."
    )
