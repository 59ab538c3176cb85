"""The motions that replay is measured on: the seven turns and flips, small bends, and transforms of the user's own."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from nucseg.errors import ConfigError
from nucseg.replay import Geometry, Motions
from nucseg.views.orientation import MOVES

TURNS, BENDS, OTHERS = "flips and quarter turns", "small affine and elastic motions", "other motions"
"""What motions are summed up as."""

ELEMENT_NAMES = dict(enumerate(MOVES, start=1))
"""What the elements of D4 do, the identity left out."""

MILD = {
    "perspective": {"name": "Perspective", "scale": [0.02, 0.05]},
    "resized crop": {"name": "RandomResizedCrop", "scale": [0.8, 1.0], "ratio": [0.9, 1.1]},
    "grid distortion": {"name": "GridDistortion", "num_steps": 5, "distort_limit": [-0.1, 0.1]},
}
"""Further motions, as people use them in histology: name -> transform of albumentations."""


@dataclass(frozen=True)
class Move:
    """One way to move images. Every image moves in its own way, a function of the seed and its id."""

    name: str
    family: str
    """What it is summed up with."""
    geometry: Geometry | None = None
    element: int = 0
    """The element of D4 that moves every image, where there is no geometry."""

    def motions(self, seed: int, image_id: str, *, side: int) -> Motions:
        """How one image moves; `side` is that of the prepared images, in pixels."""
        if self.geometry is None:
            return Motions.of_elements([self.element])
        # the name makes two moves of one image independent of each other
        return self.geometry.motions(seed, 0, [f"{self.name}: {image_id}"], side=side)


def chosen_moves(names: Sequence[str]) -> tuple[Move, ...]:
    """The moves of these names, or in these files of transforms; all that have a name, if none is given.

    `d4` stands for its seven elements.

    Raises:
        ConfigError: a name that stands for nothing, or transforms that cannot be replayed.
    """
    known = known_moves()
    if not names:
        return tuple(known.values())
    moves: dict[str, Move] = {}
    for name in names:
        found = [one for one in known.values() if name in (one.name, "d4" if one.family == TURNS else one.name)]
        for one in found or [_own(name)]:
            moves[one.name] = one
    return tuple(moves.values())


@cache
def known_moves() -> dict[str, Move]:
    """Name -> move, of those that need no file: D4, the bends that `papers` draws alone and after D4, and `MILD`."""
    turns = [Move(name, TURNS, element=element) for element, name in ELEMENT_NAMES.items()]
    bends = [
        Move(first + short, BENDS, _geometry([*steps, bend]))
        for short, bend in _bends_of_papers().items()
        for first, steps in (("", []), ("d4, then ", [{"name": "D4"}]))
    ]
    others = [Move(name, OTHERS, _geometry([step])) for name, step in MILD.items()]
    return {move.name: move for move in (*turns, *bends, *others)}


def _bends_of_papers() -> dict[str, dict[str, object]]:
    """The transforms among which the augmentation `papers` chooses, each by its short name."""
    steps = json.loads(Geometry.named("papers").text)
    members = [member for step in steps for member in step.get("one_of", ())]
    return {str(member["name"]).removesuffix("Transform").lower(): member for member in members}


def _geometry(steps: Sequence[object]) -> Geometry:
    return Geometry.named(json.dumps(list(steps)))


def _own(name: str) -> Move:
    """A file of transforms, or an augmentation of the package."""
    if name not in ("none", "papers") and not Path(name).is_file():
        known = ", ".join(map(repr, ("d4", *known_moves(), "papers")))
        raise ConfigError(f"No motion is called {name!r}, and there is no such file. Known: {known}.")
    if name == "none":
        raise ConfigError("Where nothing moves, nothing is replayed: there is nothing to measure of 'none'.")
    return Move(name, name, Geometry.named(name))
