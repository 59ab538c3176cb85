"""Stage one: run the frozen encoder over a data set and keep what it returns."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

import xxhash

from nucseg.data import DataSet, Entry, stain_identity
from nucseg.data.official_splits import plain_name, stain_of
from nucseg.encoders import Encoder, check_asked, open_encoder
from nucseg.errors import ConfigError, DataError
from nucseg.views import View, views_named
from nucseg_cache import CacheError, Key, Store, StoreExists, StoreNotFound, ViewDiffers
from nucseg_cache.formats import format_named
from nucseg_pipeline.config import EmbedConfig, store_location
from nucseg_pipeline.datasets.locate import open_source
from nucseg_pipeline.datasets.normalised import note_of, remember_unchanged, unchanged_in
from nucseg_pipeline.datasets.stores import of_dataset
from nucseg_pipeline.embed.encode import Encoding
from nucseg_pipeline.embed.estimate import Tell, forecast
from nucseg_pipeline.embed.sync import SyncResult, sync_samples
from nucseg_pipeline.embed.view_target import SIDE_PX, Target
from nucseg_pipeline.progress import Progress

NO_ENCODER = "none"
"""In place of an encoder: only the images and masks are brought into the store, for networks without guidance."""


@dataclass(frozen=True)
class ViewEmbedded:
    """What was done for one view."""

    name: str
    """`identity`, or the name of an exact view."""
    n_encoded: int
    """Embeddings made this time."""
    n_embedded: int
    """Images, of those asked for, that have an embedding in this view now."""


@dataclass(frozen=True)
class EmbedResult:
    """What stage one did, and where the result lies."""

    location: str
    key: Key | None
    """Of the embeddings; None where only the images were asked for."""
    synchronised: SyncResult
    n_encoded: int
    """Images that went through the encoder this time, each view of an image counted."""
    n_embedded: int
    """Images, of those asked for, that have an embedding now."""
    seconds: float
    """Time of the encoding alone, reading and writing included."""
    notes: tuple[str, ...] = field(default=())
    """What the user should know of the data set and the encoder."""
    views: tuple[ViewEmbedded, ...] = ()
    """The image as it is first, then the views that were asked for; empty where only the images were."""


def embed(config: EmbedConfig, progress: Progress, tell: Tell = lambda told: None) -> EmbedResult:
    """Bring a store up to date with its data set, and embed what has no embedding yet.

    Reads the data set's folder and the encoder's weights; writes `<cache>/<dataset>.zarr`, or for images whose stain is
    normalised first `<cache>/<dataset>@<stain>.zarr`. What is finished when the stage stops, for whatever reason, is
    kept, and the next call goes on from there.

    The images as they are come first, then the views that were asked for. What the embeddings still to make will take
    on disk is told before the first of them, and how long they will take once the encoder's pace is known.

    Args:
        config: what to embed with what.
        progress: called with (done, total, what).
        tell: called with what is foreseen; not at all where nothing is to be encoded.

    Raises:
        NucsegError: the data set, the encoder or an option is not usable; also when some images could not be read,
            after everything else was embedded.
        CacheError: the store cannot be read or written, has no space for what is to be made, or holds a view of that
            name that was made otherwise.
    """
    format_named(config.format)
    if config.encoder != NO_ENCODER:
        check_asked(config.encoder, weights=config.weights, precision=config.precision)
    views = views_named(config.views)
    store, dataset = _open(config)
    entries = dataset.entries[: config.limit]
    with store.exclusive():
        changes = sync_samples(store, dataset, entries, progress)
        if not changes.failures:  # a damaged copy must not become where the next call looks
            store.remember_source(dataset.source, (*dataset.notes, *note_of(unchanged_in(store.notes))))
    remember_unchanged(store, entries)
    if config.encoder == NO_ENCODER:
        notes = (*dataset.notes, *note_of(unchanged_in(store.notes)))
        return _told(EmbedResult(store.location, None, changes, 0, 0, 0.0, notes))
    usable = [entry for entry in entries if entry.id not in changes.failures and store.has(entry.id)]
    wanted = {store.row_of(entry.id): entry for entry in usable}
    # after the samples, so that a wrong folder is told before seconds are spent on weights
    with _engine(config, store, dataset, wanted, progress) as engine:
        key = Key({**engine.identity, "format": config.format})
        targets = _targets(store, key, engine, views, wanted, config.view_images)
        missing = _missing(targets)
        foreseen = forecast(store, targets, missing)
        if foreseen.n_embeddings:
            tell(foreseen)
        started = time.perf_counter()
        n_encoded = engine.encode(key, targets, missing, changes.failures, tell)
        seconds = time.perf_counter() - started
        note = engine.note
    done = _done(targets, n_encoded)
    notes = (*dataset.notes, *note_of(unchanged_in(store.notes)), *((note,) if note else ()))
    result = EmbedResult(store.location, key, changes, n_encoded.total(), done[0].n_embedded, seconds, notes, done)
    return _told(result)


class _Engine(Protocol):
    """What encodes: the encoder of this process, or workers that have one each."""

    identity: Mapping[str, str]
    provenance: Mapping[str, str]
    note: str

    def encode(
        self,
        key: Key,
        targets: Sequence[Target],
        missing: Sequence[Sequence[int]],
        failures: dict[str, str],
        tell: Tell,
    ) -> Counter[str]:
        """Encode the missing rows of the targets of a key; returns how many were made, by the name of the view."""


class _Here:
    """The encoder of this process."""

    def __init__(self, encoder: Encoder, store: Store, wanted: Mapping[int, Entry], progress: Progress) -> None:
        self._encoder, self._store, self._wanted, self._progress = encoder, store, wanted, progress
        self.identity, self.provenance, self.note = encoder.identity, encoder.provenance, encoder.note

    def encode(
        self,
        key: Key,
        targets: Sequence[Target],
        missing: Sequence[Sequence[int]],
        failures: dict[str, str],
        tell: Tell,
    ) -> Counter[str]:
        """The images as they are first, then their views."""
        n_total = sum(map(len, missing))
        encoding = Encoding(self._encoder, self._store, self._wanted, failures, n_total, self._progress, tell)
        encoding.run(targets[:1], missing[:1])
        encoding.run(targets[1:], missing[1:])
        return encoding.n_encoded


@contextmanager
def _engine(
    config: EmbedConfig, store: Store, dataset: DataSet, wanted: Mapping[int, Entry], progress: Progress
) -> Iterator[_Engine]:
    """What encodes, by what the configuration asks for."""
    if config.workers is None and config.scheduler is None:
        encoder = open_encoder(
            config.encoder, weights=config.weights, device=config.device, precision=config.precision,
            threads=config.threads, batch_size=config.batch_size,
        )  # fmt: skip
        yield _Here(encoder, store, wanted, progress)
    else:
        from nucseg_pipeline.embed.dask_coordinator import dask_backend  # Dask takes a while to import

        with dask_backend(config, store.location, dataset.source, progress) as workers:
            yield workers


def _missing(targets: Sequence[Target]) -> list[list[int]]:
    """The missing rows of each target; ViewDiffers, once for all views that were made in another way than asked for."""
    missing: list[list[int]] = []
    differing: list[ViewDiffers] = []
    for target in targets:
        try:
            missing.append(target.missing())
        except ViewDiffers as error:
            differing.append(error)
    if differing:
        more = [line for error in differing[1:] for line in str(error).splitlines()[-1:]]
        raise ViewDiffers("\n".join([str(differing[0]), *(f"So is another of its views. {line}" for line in more)]))
    return missing


def _done(targets: Sequence[Target], n_encoded: Counter[str]) -> tuple[ViewEmbedded, ...]:
    """What was done for each view, and what there is of the wanted rows now."""
    return tuple(
        ViewEmbedded(target.name, n_encoded[target.name], len(target.wanted - set(target.embeddings.missing())))
        for target in targets
    )


def _chosen(wanted: Mapping[int, Entry], n_images: int | None) -> frozenset[int]:
    """The rows of which views are made: all, or so many, drawn from their ids alone, so that more add to fewer."""
    drawn = sorted(wanted, key=lambda row: xxhash.xxh3_64_intdigest(f"view/{wanted[row].id}".encode()))
    return frozenset(drawn[:n_images])


def _targets(
    store: Store, key: Key, engine: _Engine, views: Sequence[View], wanted: Mapping[int, Entry], n_images: int | None
) -> list[Target]:
    """The images as they are, then the views of those that were chosen."""
    recorded = {**engine.provenance, "note": engine.note}
    chosen = _chosen(wanted, n_images)
    of_views = [
        Target(
            store.embeddings(key, view.name, recorded=recorded, described=view.described, images=view.has_own_image),
            chosen,
            view,
        )
        for view in views
    ]
    return [Target(store.embeddings(key, recorded=recorded), frozenset(wanted)), *of_views]


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
        store = _opened(location, config.dataset, preparation)
        return store, open_source(config.dataset, config.source, store.source)
    except StoreNotFound:
        pass
    dataset = open_source(config.dataset, config.source, _source_of_original(config))  # before anything is created
    try:
        created = Store.create(location, dataset=config.dataset, source=dataset.source, preparation=preparation)
    except StoreExists as exists:
        try:
            created = _opened(location, config.dataset, preparation)  # another process was faster
        except StoreNotFound:
            raise exists from None  # something is there, but no store
    return created, dataset


def _opened(location: str, dataset: str, preparation: Mapping[str, str]) -> Store:
    """The store that is there, whose images must be of this data set and prepared like those that would be added."""
    store = Store.open(location, mode="r+")
    if {"stain": "none", **store.preparation} != preparation:
        raise ConfigError(
            f"{location} holds {store.dataset} prepared as {store.preparation}, and images prepared as "
            f"{dict(preparation)} do not go with them. Take another --cache, or move this store away; if its images "
            "are those that are meant, name it DATASET@STAIN.zarr after their data set and stain."
        )
    return of_dataset(store, dataset)


def _source_of_original(config: EmbedConfig) -> str:
    """Where the images lie by the store that has them as they are; empty where it does not help."""
    try:
        return Store.open(store_location(config.cache, plain_name(config.dataset))).source
    except CacheError:
        return ""


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
