"""Errors by motion and replay, and by change of colour; what they recommend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import fmean
from typing import Any, Protocol

import numpy as np

from nucseg.metrics.statistics import Interval, Resampling
from nucseg.replay.fidelity import Agreement, compared, measured
from nucseg_pipeline.fidelity.motions import BENDS, TURNS
from nucseg_pipeline.fidelity.native_images import Image
from nucseg_pipeline.fidelity.photometric import RECIPES
from nucseg_pipeline.fidelity.references import CACHED, CORRECTED, LEARNED, PLAIN, VIEWS

Scores = Mapping[str, Mapping[str, Interval]]
"""Replay -> measure -> value with its interval."""

TOLERATED = 0.5
"""Largest error of a change of colour, as a share of the error of corrected replay under flips and turns. Networks are
trained with that replay by default, so that colours add at most half of the error that they tolerate already."""

REPLAY_ERROR = 0.64
"""The error of corrected replay under flips and turns where it was not measured: that of MobileSAM on NuInsSeg."""


class Spec(Protocol):
    """A kind of motion or a change of colour."""

    @property
    def name(self) -> str:
        """Its row in the tables."""

    @property
    def family(self) -> str:
        """The rows that share a recommendation."""


@dataclass(frozen=True, eq=False)
class Measurements:
    """Agreements of all images under all motions for all replays."""

    specs: Sequence[Spec]
    replays: tuple[str, ...]
    """Replays, or `COLOUR_COLUMNS`."""
    groups: Mapping[str, str]
    seed: int
    agreements: dict[tuple[str, str], dict[str, Agreement]] = field(default_factory=dict)
    """(spec, replay) -> image id -> agreement."""

    def add(self, spec: str, image_id: str, agreements: Mapping[str, Agreement]) -> None:
        """Add one image under one motion or change."""
        for replay, agreement in agreements.items():
            self.agreements.setdefault((spec, replay), {})[image_id] = agreement

    def lines(self) -> dict[str, Scores]:
        """The scores of every spec, preceded by their mean over the seven elements of D4."""
        lines = {spec.name: self.scores([spec]) for spec in self.specs}
        turns = self.family(TURNS)
        if len(turns) > 1:
            lines = {f"mean of the {len(turns)} turns and flips": self.scores(turns), **lines}
        return lines

    def family(self, name: str) -> tuple[Spec, ...]:
        """The specs of a family."""
        return tuple(spec for spec in self.specs if spec.family == name)

    def difference(self, specs: Sequence[Spec], first: str, second: str) -> Interval:
        """Paired difference in error, second replay minus first; negative if the second is better."""
        return compared(self._of(specs, first), self._of(specs, second), self.groups, self._resampling)

    def scores(self, specs: Sequence[Spec]) -> Scores:
        """The mean scores over specs."""
        return {replay: measured(self._of(specs, replay), self.groups, self._resampling) for replay in self.replays}

    def _of(self, specs: Sequence[Spec], replay: str) -> list[dict[str, Agreement]]:
        return [self.agreements[spec.name, replay] for spec in specs]

    @property
    def _resampling(self) -> Resampling:
        return Resampling(seed=self.seed)


@dataclass(frozen=True, eq=False)
class ColourMeasurements(Measurements):
    """Agreements of all images under all changes of colour, and how much the changes do to the pixels."""

    grey_levels: dict[str, list[float]] = field(default_factory=dict)
    """Change -> mean absolute difference in grey levels (0 to 255) of each image."""

    def add_grey_levels(self, spec: str, image: Image, changed: Image) -> None:
        """Add the difference of one image (H, W, 3)."""
        difference = np.abs(changed.astype(np.int16) - image).mean()
        self.grey_levels.setdefault(spec, []).append(float(difference))


@dataclass(frozen=True)
class Choice:
    """The recommended replay for a family of motions."""

    family: str
    replay: str
    """The replay with the smallest error among those that are clearly better than the next cheaper one."""
    augmentation: str
    """The value of `nucseg train --augmentation` that draws such motions; empty if none does."""
    errors: Mapping[str, Interval]
    """Replay -> mean error over the family."""
    against: Interval | None
    """Paired difference to corrected replay, the default; None if corrected replay is chosen."""
    views: Interval
    """Paired difference of exact views to the chosen replay."""

    @property
    def views_are_better(self) -> bool:
        """Whether exact views have clearly less error than the chosen replay."""
        return _below_zero(self.views)


def choose(measurements: Measurements, family: str) -> Choice:
    """Choose corrected replay, unless plain or learned replay is clearly better.

    Clearly better means that the whole interval of the paired difference over test images lies below 0.
    """
    specs, chosen = measurements.family(family), CORRECTED
    for other in (PLAIN, LEARNED):
        if other in measurements.replays and _below_zero(measurements.difference(specs, chosen, other)):
            chosen = other
    names = {TURNS: "d4", BENDS: "papers"}
    return Choice(
        family=family,
        replay=chosen,
        augmentation=names.get(family, family if family == specs[0].name else ""),
        errors={replay: measures["error"] for replay, measures in measurements.scores(specs).items()},
        against=None if chosen == CORRECTED else measurements.difference(specs, CORRECTED, chosen),
        views=measurements.difference(specs, chosen, VIEWS),
    )


@dataclass(frozen=True)
class ColourChoice:
    """Which changes of colour may be made while the cached embedding stays."""

    errors: Mapping[str, Interval]
    """Change -> error of the cached embedding, from the smallest."""
    grey_levels: Mapping[str, float]
    """Change -> mean absolute difference that it makes to the images, from 0 to 255."""
    recipes: tuple[str, ...]
    """The changes that are recipes."""
    replay_error: float
    """The error of corrected replay under flips and turns."""
    is_measured: bool
    """Whether `replay_error` was measured; if not, it is `REPLAY_ERROR`."""

    def to_json(self) -> dict[str, Any]:
        """All values for fidelity.json."""
        return {**asdict(self), "limit": self.limit, "fitting": self.fitting, "recipe": self.recipe}

    @property
    def limit(self) -> float:
        """The largest error of a change that may be made."""
        return TOLERATED * self.replay_error

    @property
    def fitting(self) -> tuple[str, ...]:
        """The changes that may be made."""
        return tuple(name for name, error in self.errors.items() if error.value <= self.limit)

    @property
    def recipe(self) -> str:
        """The recipe that may be used and changes the images most; empty if there is none."""
        fitting = [name for name in self.recipes if name in self.fitting]
        return max(fitting, key=lambda name: self.grey_levels[name], default="")


def choose_colours(colours: ColourMeasurements, motions: Measurements) -> ColourChoice:
    """Compare the errors of changes of colour with that of corrected replay."""
    turns = motions.family(TURNS)
    errors = {spec.name: colours.scores([spec])[CACHED]["error"] for spec in colours.specs}
    return ColourChoice(
        errors={name: errors[name] for name in sorted(errors, key=lambda name: errors[name].value)},
        grey_levels={name: fmean(levels) for name, levels in colours.grey_levels.items()},
        recipes=tuple(spec.name for spec in colours.family(RECIPES)),
        replay_error=motions.scores(turns)[CORRECTED]["error"].value if turns else REPLAY_ERROR,
        is_measured=bool(turns),
    )


def _below_zero(difference: Interval) -> bool:
    return difference.high is not None and difference.high < 0
