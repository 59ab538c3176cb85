"""Which images a run is scored on: its own test part, or all of a data set that it was not trained on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nucseg.data import release_named
from nucseg.data.files import some
from nucseg.data.official_splits import is_same_dataset
from nucseg.errors import ConfigError
from nucseg.metrics import check_same_images
from nucseg_cache import Store, StoreNotFound
from nucseg_pipeline.config import default_cache, store_location
from nucseg_pipeline.datasets.locate import layout_name
from nucseg_pipeline.datasets.stores import of_dataset
from nucseg_pipeline.evaluation.experiments import Configuration
from nucseg_pipeline.runs.run import Run

BY_CHANCE = "drawn by chance"
"""Why an image is shown that stands for the others."""

ALL_IMAGES = "all images in the store"
"""What stands for the protocol where no run was trained on the data set."""


@dataclass(frozen=True, eq=False)
class TestSet:
    """One data set and, for each run, the images of it that the run is scored on.

    All configurations are scored on the same images, each of them by at least one of the configuration's runs.
    """

    store: Store
    ids: Mapping[str, tuple[str, ...]]
    """Run name -> ids; runs that have no image here are left out."""
    protocol: str
    notes: tuple[str, ...]
    """What a reader has to know of the protocol, such as a leak between its parts."""

    @property
    def all_ids(self) -> tuple[str, ...]:
        """Every image that is scored, once, in the order of the runs."""
        return tuple(dict.fromkeys(one for ids in self.ids.values() for one in ids))

    def store_for(self, run: Run) -> Store:
        """Where a run reads these images: those of its own data set as they were prepared for it."""
        return run.store if is_same_dataset(run.store.dataset, self.store.dataset) else self.store


def own_test_set(entrants: Sequence[Configuration]) -> TestSet:
    """Give every run its own test part.

    Raises:
        ConfigError: two configurations were trained on different data sets, have different test images, divide them in
            another way, or see them in another size.
    """
    first, *others = entrants
    for other in others:
        _check_same_parts(first, other)
    runs = {name: run for entrant in entrants for name, run in entrant.runs.items()}
    return TestSet(
        store=first.first.store,
        ids={name: tuple(run.split.test) for name, run in runs.items()},
        protocol=_joined(run.split.protocol for run in runs.values()),
        notes=tuple(dict.fromkeys(note for run in runs.values() for note in run.split.notes)),
    )


def external_test_set(dataset: str, entrants: Sequence[Configuration], cache: str | None) -> TestSet:
    """Score on a data set that some of the runs, or none, were trained on.

    Runs that were trained on it, however it was prepared, take their test part, which must be the same images for all
    of these configurations. The others take the same images; if none was trained on it, all images. An image whose very
    file they saw in training or validation, be it under another name, is left out, for all runs alike.

    Args:
        dataset: name of its store in the cache.
        entrants: the configurations.
        cache: folder or URL of the cache; None looks where the runs were trained from, then in the default one.

    Raises:
        ConfigError: the data set is not in the cache, no image is left, or configurations trained on it have different
            test parts.
        nucseg_cache.CacheError: the store cannot be read.
    """
    away = [entrant for entrant in entrants if not is_same_dataset(entrant.dataset, dataset)]
    at_home = [entrant for entrant in entrants if entrant not in away]
    home = own_test_set(at_home) if at_home else None
    if home and not away:
        return home
    store = home.store if home else _open(dataset, entrants, cache)
    _check_preparation(store, away)
    rows = {info.id: info for info in store.table if info.present}
    wanted = home.all_ids if home else tuple(rows)
    seen = seen_files(run for entrant in away for run in entrant.runs.values())
    leaked = [one for one in wanted if rows[one].image_digest.hex() in seen]
    left = tuple(one for one in wanted if one not in set(leaked))
    if not left:
        raise ConfigError(
            f"All {len(wanted)} images of {store.location} were seen in training or validation, under this name or "
            "another (their files are the same): there is nothing to score on."
        )
    sisters = {rows[one].group for one in leaked}
    n_sisters = sum(rows[one].group in sisters for one in left)
    return TestSet(
        store=store,
        ids=_ids(entrants, home, left),
        protocol=home.protocol if home else ALL_IMAGES,
        notes=(
            *(home.notes if home else _size_note(store, len(rows))),
            _domain_note(dataset, away, len(left)),
            *_leak_notes(leaked, n_sisters, len(left)),
        ),
    )


def choose_images(
    dice: Mapping[str, float], n_images: int, seed: int, gains: Mapping[str, float] | None = None
) -> dict[str, str]:
    """Choose the images to show, id -> why: the median, the worst and the best, then some by chance.

    With `gains`, the difference of two configurations on each image, the largest gain and loss come before chance.
    """
    ranked = sorted(dice, key=lambda one: (dice[one], one))
    if len(ranked) == 1:
        return dict(list({ranked[0]: "the only image"}.items())[:n_images])
    marked = [(ranked[len(ranked) // 2], "median"), (ranked[0], "worst"), (ranked[-1], "best")]
    if gains:
        most, least = max(gains, key=lambda one: (gains[one], one)), min(gains, key=lambda one: (gains[one], one))
        marked += [(most, "largest gain")] if gains[most] > 0 else []
        marked += [(least, "largest loss")] if gains[least] < 0 else []
    reasons: dict[str, str] = {}
    for one, why in marked:
        reasons[one] = f"{reasons[one]}, {why}" if one in reasons else why
    others = [one for one in ranked if one not in reasons]
    drawn = np.random.default_rng(seed).permutation(len(others))
    chosen = reasons | {others[position]: BY_CHANCE for position in drawn}
    return dict(list(chosen.items())[:n_images])


def _check_same_parts(first: Configuration, other: Configuration) -> None:
    """Refuse to compare what was not tested on the same images, by networks that were trained on the same others."""
    if not is_same_dataset(first.dataset, other.dataset):
        raise ConfigError(
            f"{first.name} was trained on {first.dataset} and {other.name} on {other.dataset}: they have no test "
            f"part in common. Say which to score on, as in --dataset {first.dataset} --dataset {other.dataset}."
        )
    check_same_images(_tested(first), _tested(other), names=(first.name, other.name))
    if _parts(first) != _parts(other):
        raise ConfigError(
            f"{first.name} ({_protocols(first)}) and {other.name} ({_protocols(other)}) test the same images, but "
            "divide them into other parts: where one network has seen a slide, the other may not have. Compare runs of "
            "one protocol and the same folds, or report on each of them alone."
        )
    sides = [entrant.first.inputs.preparation.get("side_px") for entrant in (first, other)]
    if sides[0] != sides[1]:
        raise ConfigError(
            f"{first.name} sees images of {sides[0]} px and {other.name} of {sides[1]} px: their scores are on "
            "different grids. Report on each of them alone."
        )


def _ids(entrants: Sequence[Configuration], home: TestSet | None, left: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    kept = set(left)
    own = {name: tuple(one for one in ids if one in kept) for name, ids in home.ids.items()} if home else {}
    ids = {name: own.get(name, left) for entrant in entrants for name in entrant.runs}
    return {name: ids for name, ids in ids.items() if ids}


def _open(dataset: str, entrants: Sequence[Configuration], cache: str | None) -> Store:
    runs = [run for entrant in entrants for run in entrant.runs.values()]
    caches = [cache] if cache else [*(run.store.location.rpartition("/")[0] for run in runs), default_cache()]
    locations = list(dict.fromkeys(store_location(place, dataset) for place in caches))
    for location in locations:
        try:
            return of_dataset(Store.open(location), dataset)
        except StoreNotFound:
            continue
    guided = next((run for run in runs if run.config.fusion != "none"), None)
    encoder = f" --encoder {guided.config.encoder}" if guided else ""
    raise ConfigError(
        f"The data set {dataset!r} is not in the cache: there is no store at {' or '.join(locations)}. Make it with "
        f"`nucseg embed --dataset {dataset} --source DIR{encoder}`, or name another cache (--cache)."
    )


def _check_preparation(store: Store, entrants: Sequence[Configuration]) -> None:
    """A network must see images as it was trained to see them: of one size, with one treatment of the stain."""
    for entrant in entrants:
        prepared = dict(entrant.first.inputs.preparation)
        if prepared != dict(store.preparation):
            raise ConfigError(
                f"{entrant.name} was trained on images prepared as {prepared}, and those in {store.location} are "
                f"prepared as {dict(store.preparation)}. Name a store that was prepared in the same way."
            )


def _tested(entrant: Configuration) -> set[str]:
    return set().union(*_parts(entrant))


def _parts(entrant: Configuration) -> set[frozenset[str]]:
    return {frozenset(run.split.test) for run in entrant.runs.values()}


def _protocols(entrant: Configuration) -> str:
    folds = _joined(f"{run.split.protocol} fold {run.config.fold}" for run in entrant.runs.values())
    return f"protocol {folds}"


def seen_files(runs: Iterable[Run]) -> set[str]:
    """Hexadecimal digests of the image files that some runs were trained or validated on."""
    return {file for run in runs for one in (*run.split.train, *run.split.validation) for file in image_file(run, one)}


def image_file(run: Run, one: str) -> Sequence[str]:
    """Hexadecimal digest of an image's file as a run recorded it; empty if it did not."""
    return run.inputs.samples.get(one, ())[:1]


def _size_note(store: Store, n_images: int) -> tuple[str, ...]:
    """Say how much of the release is in the store, unless the store itself does."""
    layout = layout_name(store.dataset)
    released = release_named(layout).n_images
    if (
        released is None
        or n_images == released
        or any(f" {n_images} of the {released}" in note for note in store.notes)
    ):
        return ()
    return (f"{n_images} images of {store.dataset} are in the store; the release has {released}.",)


def _domain_note(dataset: str, away: Sequence[Configuration], n_left: int) -> str:
    trained_on = _joined(entrant.dataset for entrant in away)
    return (
        f"{', '.join(entrant.name for entrant in away)}: trained on {trained_on}, not on {dataset}. Network, threshold "
        f"and separation of nuclei were chosen there; nothing was chosen on these {n_left} images."
    )


def _leak_notes(leaked: Sequence[str], n_sisters: int, n_left: int) -> tuple[str, ...]:
    if not leaked:
        return ()
    left_out = (
        f"{len(leaked)} images were left out, because their very files were seen in training or validation: "
        f"{some(leaked)}."
    )
    if not n_sisters:
        return (left_out,)
    return (
        left_out,
        f"{n_sisters} of the {n_left} images that are left come from a group (patient, slide or source image) of which "
        "others were seen in training or validation: their scores promise too much for new slides.",
    )


def _joined(words: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(words))
