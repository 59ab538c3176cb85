"""Test sets: which images a run is scored on, in its own test part or in a data set that it was not trained on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from nucseg.data import release_named
from nucseg.data.files import some
from nucseg.data.official_splits import is_same_dataset
from nucseg.errors import ConfigError, suggestion
from nucseg.metrics import check_same_images
from nucseg_cache import RowInfo, Store, StoreNotFound
from nucseg_pipeline.config import default_cache, store_location
from nucseg_pipeline.config.commands import command
from nucseg_pipeline.datasets.cached import store_names
from nucseg_pipeline.datasets.locate import layout_name
from nucseg_pipeline.datasets.stores import of_dataset
from nucseg_pipeline.evaluation.experiments import Configuration
from nucseg_pipeline.runs.run import Run
from nucseg_pipeline.runs.selection import embedding_of

RANDOM = "random"

ALL_IMAGES = "all images in the store"
"""The protocol's name where no run was trained on the data set."""


@dataclass(frozen=True, eq=False)
class TestSet:
    """One data set and, for each run, the images of it that the run is scored on.

    All configurations are scored on the same images, each image by at least one of the configuration's runs.
    """

    store: Store
    ids: Mapping[str, tuple[str, ...]]
    """Run name -> image ids; runs without an image here are left out."""
    protocol: str
    notes: tuple[str, ...]
    """What a reader has to know about the protocol, such as a leak between its parts, and about the images."""
    not_scored: Mapping[str, tuple[RowInfo, ...]] = field(default_factory=dict)
    """Run name -> images that are left out because every pixel of them is ignored; see `score_runs.inspected`."""

    @property
    def not_scored_ids(self) -> tuple[str, ...]:
        """The images in which every pixel is ignored."""
        return tuple(dict.fromkeys(info.id for infos in self.not_scored.values() for info in infos))

    @property
    def all_ids(self) -> tuple[str, ...]:
        """Every image that is scored, once, in the order of the runs."""
        return tuple(dict.fromkeys(image_id for ids in self.ids.values() for image_id in ids))

    def store_for(self, run: Run) -> Store:
        """Where a run reads these images: images of its own data set as they were prepared for it."""
        return run.store if is_same_dataset(run.store.dataset, self.store.dataset) else self.store

    def scored_runs(self, configurations: Iterable[Configuration]) -> Iterator[tuple[str, Run]]:
        """The runs that have images here, with their names."""
        for configuration in configurations:
            for name, run in configuration.runs.items():
                if name in self.ids:
                    yield name, run

    def first_runs(
        self, configuration: Configuration, image_ids: Iterable[str]
    ) -> Iterator[tuple[str, Run, tuple[str, ...]]]:
        """Assign each image to the first run of a configuration that is scored on it: name, run and its images."""
        left = dict.fromkeys(image_ids)
        for name, run in self.scored_runs([configuration]):
            own = tuple(image_id for image_id in left if image_id in self.ids[name])
            for image_id in own:
                del left[image_id]
            if own:
                yield name, run, own


def own_test_set(configurations: Sequence[Configuration]) -> TestSet:
    """Score every run on its own test part.

    Raises:
        ConfigError: two configurations were trained on different data sets, have different test images, another split,
            or images of another size.
    """
    first, *others = configurations
    for other in others:
        _check_same_parts(first, other)
    runs = {name: run for configuration in configurations for name, run in configuration.runs.items()}
    return TestSet(
        store=first.first.store,
        ids={name: tuple(run.split.test) for name, run in runs.items()},
        protocol=_joined(run.split.protocol for run in runs.values()),
        notes=tuple(dict.fromkeys(note for run in runs.values() for note in run.split.notes)),
    )


def external_test_set(dataset: str, configurations: Sequence[Configuration], cache: str | None) -> TestSet:
    """Score on a data set that some of the runs, or none, were trained on.

    Runs that were trained on it, with any preparation, take their test part, which must be the same images for all of
    these configurations. The others take the same images; if no run was trained on it, all images. An image whose file
    a run has seen in training or validation, even under another name, is left out for all runs.

    Without `cache`, its store is looked for where the runs were trained from, then in the default cache.

    Raises:
        ConfigError: the data set is not in the cache, no image is left, or configurations trained on it have different
            test parts.
        nucseg_cache.CacheError: the store cannot be read.
    """
    external = [item for item in configurations if not is_same_dataset(item.dataset, dataset)]
    internal = [item for item in configurations if item not in external]
    own = own_test_set(internal) if internal else None
    if own and not external:
        return own
    store = own.store if own else _open(dataset, configurations, cache)
    _check_preparation(store, external)
    rows = {info.id: info for info in store.table if info.present}
    candidates = own.all_ids if own else tuple(rows)
    seen = seen_files(run for configuration in external for run in configuration.runs.values())
    leaked = [image_id for image_id in candidates if rows[image_id].image_digest.hex() in seen]
    left = tuple(image_id for image_id in candidates if image_id not in set(leaked))
    if not left:
        raise ConfigError(
            f"All {len(candidates)} images of {store.location} were used for training or validation, under this or "
            "another name (the files are identical): no image is left to score."
        )
    leaked_groups = {rows[image_id].group for image_id in leaked}
    n_related = sum(rows[image_id].group in leaked_groups for image_id in left)
    return TestSet(
        store=store,
        ids=_ids(configurations, own, left),
        protocol=own.protocol if own else ALL_IMAGES,
        notes=(
            *(own.notes if own else _size_note(store, len(rows))),
            _domain_note(dataset, external, len(left)),
            *_leak_notes(leaked, n_related, len(left)),
        ),
    )


def choose_images(
    dice: Mapping[str, float], n_images: int, seed: int, gains: Mapping[str, float] | None = None
) -> dict[str, str]:
    """Choose images to show, id -> why: the median, the worst and the best by Dice, then random ones.

    With `gains`, the difference of two configurations for each image, the largest gain and loss precede random images.
    """
    ranked = sorted(dice, key=lambda image_id: (dice[image_id], image_id))
    if len(ranked) == 1:
        return dict.fromkeys(ranked[:n_images], "the only image")
    marked = [(ranked[len(ranked) // 2], "median"), (ranked[0], "worst"), (ranked[-1], "best")]
    if gains:
        by_gain = sorted(gains, key=lambda image_id: (gains[image_id], image_id))
        marked += [(by_gain[-1], "largest gain")] if gains[by_gain[-1]] > 0 else []
        marked += [(by_gain[0], "largest loss")] if gains[by_gain[0]] < 0 else []
    reasons: dict[str, str] = {}
    for image_id, why in marked:
        reasons[image_id] = f"{reasons[image_id]}, {why}" if image_id in reasons else why
    others = [image_id for image_id in ranked if image_id not in reasons]
    drawn = np.random.default_rng(seed).permutation(len(others))
    chosen = reasons | {others[position]: RANDOM for position in drawn}
    return dict(list(chosen.items())[:n_images])


def _check_same_parts(first: Configuration, other: Configuration) -> None:
    if not is_same_dataset(first.dataset, other.dataset):
        raise ConfigError(
            f"{first.name} was trained on {first.dataset} and {other.name} on {other.dataset}: they have no test "
            f"images in common. Name the data sets to score on, as in --dataset {first.dataset} "
            f"--dataset {other.dataset}."
        )
    check_same_images(_tested(first), _tested(other), names=(first.name, other.name))
    if _parts(first) != _parts(other):
        raise ConfigError(
            f"{first.name} ({_protocols(first)}) and {other.name} ({_protocols(other)}) have the same test images, but "
            "split them differently: one network may have been trained on slides that the other was not. Compare runs "
            "of the same protocol and folds, or make a report on each of them."
        )
    sides = [configuration.first.inputs.preparation.get("side_px") for configuration in (first, other)]
    if sides[0] != sides[1]:
        raise ConfigError(
            f"{first.name} was trained on images of {sides[0]} px and {other.name} on images of {sides[1]} px: their "
            "scores are on different grids. Make a report on each of them."
        )


def _ids(
    configurations: Sequence[Configuration], own: TestSet | None, left: tuple[str, ...]
) -> dict[str, tuple[str, ...]]:
    kept = set(left)
    parts = {name: tuple(i for i in ids if i in kept) for name, ids in own.ids.items()} if own else {}
    ids = {name: parts.get(name, left) for configuration in configurations for name in configuration.runs}
    return {name: image_ids for name, image_ids in ids.items() if image_ids}


def _open(dataset: str, configurations: Sequence[Configuration], cache: str | None) -> Store:
    runs = [run for configuration in configurations for run in configuration.runs.values()]
    caches = [cache] if cache else [*(run.store.location.rpartition("/")[0] for run in runs), default_cache()]
    locations = list(dict.fromkeys(store_location(place, dataset) for place in caches))
    for location in locations:
        try:
            return of_dataset(Store.open(location), dataset)
        except StoreNotFound:
            continue
    guided = next((run for run in runs if run.config.fusion != "none"), None)
    embedding = embedding_of((guided or runs[0]).config)
    made = replace(embedding, dataset=dataset, stain=None, source=Path("DIR"), cache=caches[0])
    near = suggestion(dataset, {name for place in caches for name in store_names(place)})
    raise ConfigError(
        f"The data set {dataset!r} is not in the cache: there is no store at {' or '.join(locations)}. "
        f"{near}{' ' if near else ''}Make it with `{command(made, always=('encoder',))}`, where DIR is its folder, or "
        "name another cache (--cache)."
    )


def _check_preparation(store: Store, configurations: Sequence[Configuration]) -> None:
    """A network must see images as in training: of the same size and stain normalisation."""
    for configuration in configurations:
        prepared = dict(configuration.first.inputs.preparation)
        if prepared != dict(store.preparation):
            raise ConfigError(
                f"{configuration.name} was trained on images prepared as {prepared}, but those in {store.location} are "
                f"prepared as {dict(store.preparation)}. Name a store that was prepared in the same way."
            )


def _tested(configuration: Configuration) -> set[str]:
    return set().union(*_parts(configuration))


def _parts(configuration: Configuration) -> set[frozenset[str]]:
    return {frozenset(run.split.test) for run in configuration.runs.values()}


def _protocols(configuration: Configuration) -> str:
    folds = _joined(f"{run.split.protocol} fold {run.config.fold}" for run in configuration.runs.values())
    return f"protocol {folds}"


def seen_files(runs: Iterable[Run]) -> set[str]:
    """Hexadecimal digests of the image files that some runs were trained or validated on."""
    return {
        digest
        for run in runs
        for image_id in (*run.split.train, *run.split.validation)
        for digest in image_file(run, image_id)
    }


def image_file(run: Run, image_id: str) -> Sequence[str]:
    """Hexadecimal digest of an image's file as a run recorded it; empty if it did not."""
    return run.inputs.samples.get(image_id, ())[:1]


def _size_note(store: Store, n_images: int) -> tuple[str, ...]:
    """Say how many images of the release are in the store, unless the store's own notes do."""
    released = release_named(layout_name(store.dataset)).n_images
    if (
        released is None
        or n_images == released
        or any(f" {n_images} of the {released}" in note for note in store.notes)
    ):
        return ()
    return (f"The store has {n_images} images of {store.dataset}; the release has {released}.",)


def _domain_note(dataset: str, external: Sequence[Configuration], n_left: int) -> str:
    trained_on = _joined(configuration.dataset for configuration in external)
    return (
        f"{', '.join(configuration.name for configuration in external)}: trained on {trained_on}, not on {dataset}. "
        f"Network, threshold and separation of nuclei were chosen there; nothing was chosen on these {n_left} images."
    )


def _leak_notes(leaked: Sequence[str], n_related: int, n_left: int) -> tuple[str, ...]:
    if not leaked:
        return ()
    left_out = (
        f"{len(leaked)} images were left out because the same files were used for training or validation: "
        f"{some(leaked)}."
    )
    if not n_related:
        return (left_out,)
    return (
        left_out,
        f"{n_related} of the remaining {n_left} images share a group (patient, slide or source image) with images used "
        "for training or validation: their scores are optimistic for unseen slides.",
    )


def _joined(words: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(words))
