"""Stage one: run the frozen encoder over a data set and store the embeddings."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from nucseg.data import DataSet, Entry, stain_identity
from nucseg.data.conversion import conversion_identity, conversion_of
from nucseg.data.mask_notes import is_mask_note
from nucseg.data.official_splits import plain_name, stain_of
from nucseg.encoders import check_encoder, check_spec, open_encoder
from nucseg.errors import ConfigError, DataError
from nucseg.views import views_named
from nucseg_cache import CacheError, Key, Store, StoreExists, StoreNotFound
from nucseg_cache.formats import format_named
from nucseg_pipeline.config import EmbedConfig, store_location
from nucseg_pipeline.datasets.locate import open_source
from nucseg_pipeline.datasets.normalised import note_of, remember_unchanged, unchanged_in
from nucseg_pipeline.datasets.stores import of_dataset
from nucseg_pipeline.embed.backend import LocalBackend
from nucseg_pipeline.embed.decoded_images import MAX_DECODED_BYTES, DecodedImages
from nucseg_pipeline.embed.estimate import OnEstimate, estimate_disk
from nucseg_pipeline.embed.sync import SyncResult, notes_on_images, notes_on_masks, sync_samples
from nucseg_pipeline.embed.view_target import SIDE_PX, ViewTarget, missing_rows, view_targets
from nucseg_pipeline.loading.inspection import is_caution_note
from nucseg_pipeline.progress import Progress

if TYPE_CHECKING:
    from nucseg_pipeline.embed.dask_coordinator import DaskBackend

NO_ENCODER = "none"
"""Name given in place of an encoder to store only images and masks, for networks without guidance."""


@dataclass(frozen=True)
class ViewEmbedded:
    """What was done for one view."""

    name: str
    """`identity`, or the name of an exact view."""
    n_encoded: int
    """Embeddings made by this call."""
    n_embedded: int
    """Images, of those asked for, that have an embedding in this view now."""


@dataclass(frozen=True)
class EmbedResult:
    """What stage one did, and where the result is."""

    location: str
    key: Key | None
    """Of the embeddings; None without an encoder."""
    sync: SyncResult
    """How the data set differed from the store."""
    notes: tuple[str, ...]
    """What the user should know about the data set and the encoder."""
    seconds: float = 0.0
    """Time of the encoding alone, reading and writing included."""
    views: tuple[ViewEmbedded, ...] = ()
    """The unchanged image first, then the views that were asked for; empty without an encoder."""

    @property
    def n_encoded(self) -> int:
        """Embeddings made by this call; each view of an image counts as one."""
        return sum(view.n_encoded for view in self.views)

    @property
    def n_embedded(self) -> int:
        """Images, of those asked for, that have an embedding now."""
        return self.views[0].n_embedded if self.views else 0


def embed(
    config: EmbedConfig,
    progress: Progress = lambda done, total, what: None,
    on_estimate: OnEstimate = lambda estimate: None,
) -> EmbedResult:
    """Bring a store up to date with its data set, and embed what has no embedding yet.

    Reads the data set's folder and the encoder's weights; writes `<cache>/<dataset>.zarr`, or
    `<cache>/<dataset>@<stain>.zarr` for stain-normalised images. When the stage stops, for whatever reason, all that is
    finished is kept, and the next call continues from there.

    The unchanged images are encoded first, then the views that were asked for.

    Args:
        config: what to embed with what.
        progress: called with (done, total, what).
        on_estimate: called with the disk space before the first embedding is made, and with the time once the
            encoder's speed is known; not called if nothing is missing.

    Raises:
        NucsegError: the data set, the encoder or an option is not usable; also if some images could not be read,
            after all others were embedded.
        CacheError: the store cannot be read or written, has no space for the embeddings, or holds a view of the same
            name that was made differently.
    """
    format_named(config.format)
    if config.encoder != NO_ENCODER:
        check_spec(config.encoder, weights=config.weights, precision=config.precision)
    views = views_named(config.views)
    existing = _existing_store(config)
    convert = config.convert or (conversion_of(existing.preparation) if existing else "none")
    config = replace(config, convert=convert)
    if config.encoder != NO_ENCODER and config.scheduler is None:  # a cluster may have files that are not here
        check_encoder(config.encoder, weights=config.weights, precision=config.precision)
    remembered = existing.source if existing else _source_of_original(config)
    dataset = open_source(config.dataset, config.source, remembered, convert)
    store = existing or _create(config, dataset)  # nothing is written before all of this was found
    entries = dataset.entries[: config.limit]
    decoded = DecodedImages(MAX_DECODED_BYTES if _encodes_in_this_process(config) else 0)
    with store.exclusive():
        changes = sync_samples(store, dataset, entries, progress, decoded)
        # with failures, the next call must not look for its images in this copy, which may be damaged
        source = store.source if changes.failures else dataset.source
        found = (*notes_on_masks(store, dataset, changes, progress), *notes_on_images(store, changes, progress))
        store.remember_source(source, (*dataset.notes, *found, *note_of(unchanged_in(store.notes))))
    remember_unchanged(store, entries)
    if config.encoder == NO_ENCODER:
        return _complete(EmbedResult(store.location, None, changes, _notes(dataset, store)))
    usable = [entry for entry in entries if entry.id not in changes.failures and store.has(entry.id)]
    wanted = {store.row_of(entry.id): entry for entry in usable}
    with _backend(config, store, dataset, wanted, decoded, progress) as backend:
        key = Key({**backend.identity, "format": config.format})
        recorded = {**backend.provenance, "note": backend.note}
        targets = view_targets(store, key, recorded, views, wanted, config.view_images)
        missing = missing_rows(targets)
        estimate = estimate_disk(store, targets, missing)
        if estimate.n_embeddings:
            on_estimate(estimate)
        started = time.perf_counter()
        n_encoded = backend.encode(key, targets, missing, changes.failures, on_estimate)
        seconds = time.perf_counter() - started
    notes = _notes(dataset, store, backend.note)
    return _complete(EmbedResult(store.location, key, changes, notes, seconds, _views(targets, n_encoded)))


def _encodes_in_this_process(config: EmbedConfig) -> bool:
    return config.encoder != NO_ENCODER and config.workers is None and config.scheduler is None


@contextmanager
def _backend(
    config: EmbedConfig,
    store: Store,
    dataset: DataSet,
    wanted: Mapping[int, Entry],
    decoded: DecodedImages,
    progress: Progress,
) -> Iterator[LocalBackend | DaskBackend]:
    """The backend that a configuration asks for."""
    if _encodes_in_this_process(config):
        encoder = open_encoder(
            config.encoder, weights=config.weights, device=config.device, precision=config.precision,
            threads=config.threads, batch_size=config.batch_size,
        )  # fmt: skip
        yield LocalBackend(encoder, store, wanted, decoded, progress)
    else:
        from nucseg_pipeline.embed.dask_coordinator import dask_backend  # Dask takes a while to import

        with dask_backend(config, store.location, dataset.source, progress) as workers:
            yield workers


def _views(targets: Sequence[ViewTarget], n_encoded: Counter[str]) -> tuple[ViewEmbedded, ...]:
    return tuple(
        ViewEmbedded(target.name, n_encoded[target.name], len(target.wanted - set(target.embeddings.missing())))
        for target in targets
    )


def _notes(dataset: DataSet, store: Store, encoder_note: str = "") -> tuple[str, ...]:
    found = (note for note in store.notes if is_mask_note(note) or is_caution_note(note))
    unchanged = note_of(unchanged_in(store.notes))
    return (*dataset.notes, *found, *unchanged, *((encoder_note,) if encoder_note else ()))


def _create(config: EmbedConfig, dataset: DataSet) -> Store:
    location = store_location(config.cache, config.dataset)
    preparation = _preparation(config.dataset, config.convert or "none")
    try:
        return Store.create(location, dataset=config.dataset, source=dataset.source, preparation=preparation)
    except StoreExists:
        created = _existing_store(config)
        if created is None:  # something is there, but no store
            raise
        return created  # another process was faster


def _existing_store(config: EmbedConfig) -> Store | None:
    """The store, which must hold images of this data set, prepared in the same way as those that are added."""
    location = store_location(config.cache, config.dataset)
    try:
        store = Store.open(location, mode="r+")
    except StoreNotFound:
        return None
    stored = conversion_of(store.preparation)
    preparation = _preparation(config.dataset, config.convert or stored)
    if {"stain": "none", **store.preparation} != preparation:
        way_out = (
            "If its images are the right ones, rename it to DATASET@STAIN.zarr after their data set and stain."
            if conversion_of(preparation) == stored
            else f"To add images that are read as those in it, leave out --convert or take --convert {stored}."
        )
        raise ConfigError(
            f"{location} holds {store.dataset} prepared as {store.preparation}; images prepared as {preparation} "
            f"cannot be added to it. Choose another --cache, or move this store away. {way_out}"
        )
    return of_dataset(store, config.dataset)


def _preparation(dataset: str, convert: str) -> dict[str, str]:
    return {"side_px": str(SIDE_PX), **stain_identity(stain_of(dataset)), **conversion_identity(convert)}


def _source_of_original(config: EmbedConfig) -> str:
    """The folder of the images according to the store without stain normalisation; empty if that does not help."""
    try:
        return Store.open(store_location(config.cache, plain_name(config.dataset))).source
    except CacheError:
        return ""


def _complete(result: EmbedResult) -> EmbedResult:
    """The result; DataError if some images could not be used."""
    failures = result.sync.failures
    if not failures:
        return result
    reasons = "".join(f"\n  {reason}" for _, reason in sorted(failures.items())[:8])
    more = f"\n  and {len(failures) - 8} more" if len(failures) > 8 else ""
    n_others = result.sync.n_images - len(failures)
    done = f"{n_others} are" if result.key is None else f"{result.n_embedded} are embedded"
    raise DataError(
        f"{len(failures)} of {result.sync.n_images} images could not be used:{reasons}{more}\n"
        f"{_vanished(result.sync.vanished)}The other {done} in {result.location}. Repair or remove the files and run "
        "the command again: it encodes only what is missing."
    )


def _vanished(n_images: int) -> str:
    if not n_images:
        return ""
    return (
        f"{n_images} more images of the store are not in this folder and are not used from now on. If it is the wrong "
        "folder, name the right one with --source: they come back without being encoded again.\n"
    )
