"""Which images a run is scored on: its own test part, or all of a data set that it was not trained on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce

from nucseg.errors import ConfigError
from nucseg.metrics import check_same_images
from nucseg_cache import Store, StoreNotFound
from nucseg_pipeline.config import store_location
from nucseg_pipeline.inputs import named
from nucseg_pipeline.reporting.configurations import Configuration
from nucseg_pipeline.runs import Run

ALL_IMAGES = "all images"
"""What stands for the protocol where no run was trained on the data set."""


@dataclass(frozen=True, eq=False)
class Exam:
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
        """Where a run reads these images: those of its own data set where it was trained from."""
        return run.store if run.store.dataset == self.store.dataset else self.store


def own_exam(entrants: Sequence[Configuration]) -> Exam:
    """Give every run its own test part.

    Raises:
        ConfigError: two configurations have different test images.
    """
    first, *others = entrants
    for other in others:
        if other.dataset != first.dataset:
            raise ConfigError(
                f"{first.name} was trained on {first.dataset} and {other.name} on {other.dataset}: they have no test "
                f"part in common. Say which to score on, as in --dataset {first.dataset} --dataset {other.dataset}."
            )
        check_same_images(_tested(first), _tested(other), names=(first.name, other.name))
    runs = {name: run for entrant in entrants for name, run in entrant.runs.items()}
    return Exam(
        store=first.first.store,
        ids={name: tuple(run.split.test) for name, run in runs.items()},
        protocol=_joined(run.split.protocol for run in runs.values()),
        notes=tuple(dict.fromkeys(note for run in runs.values() for note in run.split.notes)),
    )


def exam_on(dataset: str, entrants: Sequence[Configuration], cache: str | None) -> Exam:
    """Score on a data set that some of the runs, or none, were trained on.

    Runs that were trained on it take their test part, which must be the same images for all of these configurations.
    The others take the same images; if none was trained on it, all images. An image whose very file was seen in
    training or validation, be it under another name, is left out, for all runs alike.

    Args:
        dataset: name of its store in the cache.
        entrants: the configurations.
        cache: folder or URL of the cache; None takes the one that the first run was trained from.

    Raises:
        ConfigError: the data set is not in the cache, no image is left, or configurations trained on it have different
            test parts.
        nucseg_cache.CacheError: the store cannot be read.
    """
    at_home = [entrant for entrant in entrants if entrant.dataset == dataset]
    if len(at_home) == len(entrants):
        return own_exam(entrants)
    home = own_exam(at_home) if at_home else None
    store = home.store if home else _open(dataset, entrants[0].first, cache)
    _check_preparation(store, entrants)
    digests = {info.id: info.image_digest.hex() for info in store.table if info.present}
    wanted = home.all_ids if home else tuple(digests)
    away = [entrant for entrant in entrants if entrant.dataset != dataset]
    seen = _seen(run for entrant in away for run in entrant.runs.values())
    leaked = [one for one in wanted if digests[one] in seen]
    left = tuple(one for one in wanted if digests[one] not in seen)
    if not left:
        raise ConfigError(
            f"All {len(wanted)} images of {store.location} were seen in training or validation, under this name or "
            "another (their files are the same): there is nothing to score on."
        )
    return Exam(
        store=store,
        ids=_ids(entrants, home, left),
        protocol=home.protocol if home else ALL_IMAGES,
        notes=(*(home.notes if home else ()), *_notes(dataset, away, leaked, len(left))),
    )


def _ids(entrants: Sequence[Configuration], home: Exam | None, left: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    kept = set(left)
    own = {name: tuple(one for one in ids if one in kept) for name, ids in home.ids.items()} if home else {}
    ids = {name: own.get(name, left) for entrant in entrants for name in entrant.runs}
    return {name: ids for name, ids in ids.items() if ids}


def _open(dataset: str, run: Run, cache: str | None) -> Store:
    location = store_location(cache or run.store.location.rpartition("/")[0], dataset)
    try:
        return Store.open(location)
    except StoreNotFound as error:
        encoder = "" if run.config.fusion == "none" else f" --encoder {run.config.encoder}"
        raise ConfigError(
            f"The data set {dataset!r} is not in the cache: there is no store at {location}. "
            f"Make it with `nucseg embed --dataset {dataset} --source DIR{encoder}`, or name another cache (--cache)."
        ) from error


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
    return reduce(set.union, (set(run.split.test) for run in entrant.runs.values()), set())


def _seen(runs: Iterable[Run]) -> set[str]:
    """Hexadecimal digests of the image files that some runs were trained or validated on."""
    digests: set[str] = set()
    for run in runs:
        digests |= {run.inputs.samples[one][0] for one in (*run.split.train, *run.split.validation)}
    return digests


def _notes(dataset: str, away: Sequence[Configuration], leaked: Sequence[str], n_left: int) -> list[str]:
    trained_on = _joined(entrant.dataset for entrant in away)
    notes = [
        f"{', '.join(entrant.name for entrant in away)}: trained on {trained_on}, not on {dataset}. Network, threshold "
        f"and separation of nuclei were chosen there; nothing was chosen on these {n_left} images."
    ]
    if leaked:
        notes.append(
            f"{len(leaked)} images were left out, because their very files were seen in training or validation: "
            f"{named(leaked)}."
        )
    return notes


def _joined(words: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(words))
