"""What was measured, motion by motion and replay by replay, and which replay it speaks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from nucseg.metrics.statistics import Interval, Resampling
from nucseg.replay.fidelity import Agreement, compared, measured
from nucseg_pipeline.fidelity.motions import BENDS, TURNS, Move
from nucseg_pipeline.fidelity.references import CORRECTED, LEARNED, PLAIN, VIEWS

Scores = Mapping[str, Mapping[str, Interval]]
"""Replay -> measure -> value with its interval."""


@dataclass(frozen=True, eq=False)
class Measurements:
    """Every image under every move by every replay."""

    moves: tuple[Move, ...]
    replays: tuple[str, ...]
    groups: Mapping[str, str]
    """Image id -> group."""
    seed: int
    """Of the bootstrap."""
    found: dict[tuple[str, str], dict[str, Agreement]] = field(default_factory=dict)
    """(move, replay) -> image id -> agreement."""

    def add(self, move: str, image_id: str, agreements: Mapping[str, Agreement]) -> None:
        """Take in one image under one move."""
        for replay, one in agreements.items():
            self.found.setdefault((move, replay), {})[image_id] = one

    def lines(self) -> dict[str, Scores]:
        """Every move, and the mean over the seven elements of D4, each by every replay."""
        lines = {move.name: self._scores([move]) for move in self.moves}
        turns = self.family(TURNS)
        if len(turns) > 1:
            lines = {f"mean of the {len(turns)} turns and flips": self._scores(turns), **lines}
        return lines

    def families(self) -> dict[str, tuple[Move, ...]]:
        """Family -> its moves."""
        return {name: self.family(name) for name in dict.fromkeys(move.family for move in self.moves)}

    def family(self, name: str) -> tuple[Move, ...]:
        """The moves of a family."""
        return tuple(move for move in self.moves if move.family == name)

    def error(self, moves: Sequence[Move], replay: str) -> Interval:
        """The mean error over moves."""
        return measured(self._of(moves, replay), self.groups, self._draws)["error"]

    def gain(self, moves: Sequence[Move], first: str, second: str) -> Interval:
        """How much more error the second replay makes than the first, image by image; below 0 it is better."""
        return compared(self._of(moves, first), self._of(moves, second), self.groups, self._draws)

    def _scores(self, moves: Sequence[Move]) -> Scores:
        return {replay: measured(self._of(moves, replay), self.groups, self._draws) for replay in self.replays}

    def _of(self, moves: Sequence[Move], replay: str) -> list[dict[str, Agreement]]:
        return [self.found[move.name, replay] for move in moves]

    @property
    def _draws(self) -> Resampling:
        return Resampling(seed=self.seed)


@dataclass(frozen=True)
class Choice:
    """Which replay the errors of one family of moves speak for."""

    family: str
    replay: str
    """The one of the smallest error, of those that are clearly better than the next cheaper one."""
    augmentation: str
    """What `nucseg train --augmentation` draws such moves; empty where nothing that has a name does."""
    errors: Mapping[str, Interval]
    """Replay -> mean error over the family."""
    against: Interval | None
    """Paired difference to corrected replay, the default; None where that is chosen."""
    views: Interval
    """Paired difference of exact views to the chosen replay."""

    @property
    def views_are_better(self) -> bool:
        """Whether exact views leave clearly less error than the chosen replay."""
        return _below(self.views)


def choose(found: Measurements, family: str) -> Choice:
    """Choose for one family: corrected, unless plain or learned replay makes clearly less error.

    Clearly is: the whole interval of the paired difference over held-out images lies below 0.
    """
    moves, chosen = found.family(family), CORRECTED
    for other in (PLAIN, LEARNED):
        if other in found.replays and _below(found.gain(moves, chosen, other)):
            chosen = other
    names = {TURNS: "d4", BENDS: "papers"}
    return Choice(
        family=family,
        replay=chosen,
        augmentation=names.get(family, family if family == moves[0].name else ""),
        errors={replay: found.error(moves, replay) for replay in found.replays},
        against=None if chosen == CORRECTED else found.gain(moves, CORRECTED, chosen),
        views=found.gain(moves, chosen, VIEWS),
    )


def _below(difference: Interval) -> bool:
    return difference.high is not None and difference.high < 0
