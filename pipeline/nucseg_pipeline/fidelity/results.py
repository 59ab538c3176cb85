"""Errors by motion and replay, and the replay that they recommend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from nucseg.metrics.statistics import Interval, Resampling
from nucseg.replay.fidelity import Agreement, compared, measured
from nucseg_pipeline.fidelity.motions import BENDS, TURNS, MotionSpec
from nucseg_pipeline.fidelity.references import CORRECTED, LEARNED, PLAIN, VIEWS

Scores = Mapping[str, Mapping[str, Interval]]
"""Replay -> measure -> value with its interval."""


@dataclass(frozen=True, eq=False)
class Measurements:
    """Agreements of all images under all motions for all replays."""

    specs: tuple[MotionSpec, ...]
    replays: tuple[str, ...]
    groups: Mapping[str, str]
    seed: int
    agreements: dict[tuple[str, str], dict[str, Agreement]] = field(default_factory=dict)
    """(motion, replay) -> image id -> agreement."""

    def add(self, motion: str, image_id: str, agreements: Mapping[str, Agreement]) -> None:
        """Add one image under one motion."""
        for replay, agreement in agreements.items():
            self.agreements.setdefault((motion, replay), {})[image_id] = agreement

    def lines(self) -> dict[str, Scores]:
        """The scores of every motion, preceded by their mean over the seven elements of D4."""
        lines = {spec.name: self.scores([spec]) for spec in self.specs}
        turns = self.family(TURNS)
        if len(turns) > 1:
            lines = {f"mean of the {len(turns)} turns and flips": self.scores(turns), **lines}
        return lines

    def family(self, name: str) -> tuple[MotionSpec, ...]:
        """The motions of a family."""
        return tuple(spec for spec in self.specs if spec.family == name)

    def difference(self, specs: Sequence[MotionSpec], first: str, second: str) -> Interval:
        """Paired difference in error, second replay minus first; negative if the second is better."""
        return compared(self._of(specs, first), self._of(specs, second), self.groups, self._resampling)

    def scores(self, specs: Sequence[MotionSpec]) -> Scores:
        """The mean scores over motions."""
        return {replay: measured(self._of(specs, replay), self.groups, self._resampling) for replay in self.replays}

    def _of(self, specs: Sequence[MotionSpec], replay: str) -> list[dict[str, Agreement]]:
        return [self.agreements[spec.name, replay] for spec in specs]

    @property
    def _resampling(self) -> Resampling:
        return Resampling(seed=self.seed)


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


def _below_zero(difference: Interval) -> bool:
    return difference.high is not None and difference.high < 0
