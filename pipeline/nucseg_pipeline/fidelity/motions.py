"""The motions that replay is measured on: the seven turns and flips, small deformations, and the user's transforms."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from nucseg.errors import ConfigError, known
from nucseg.replay import Geometry, Motions, geometry_names
from nucseg.views.orientation import MOVES
from nucseg_pipeline.config.fidelity import NONE

TURNS, BENDS, OTHERS = "flips and quarter turns", "small affine and elastic motions", "other motions"
"""Families of motions, each with its own recommendation."""

ELEMENT_NAMES = dict(enumerate(MOVES, start=1))

MILD = {
    "perspective": {"name": "Perspective", "scale": [0.02, 0.05]},
    "resized crop": {"name": "RandomResizedCrop", "scale": [0.8, 1.0], "ratio": [0.9, 1.1]},
    "grid distortion": {"name": "GridDistortion", "num_steps": 5, "distort_limit": [-0.1, 0.1]},
}
"""Further motions as used in histology: name -> transform of albumentations."""


@dataclass(frozen=True)
class MotionSpec:
    """A named kind of motion. Each image gets its own motion, a function of the seed and its id."""

    name: str
    family: str
    geometry: Geometry | None = None
    element: int = 0
    """The element of D4 that moves every image, if `geometry` is None."""

    def motions(self, seed: int, image_id: str, *, side: int) -> Motions:
        """The motion of one image; `side` is the side of the prepared images in pixels."""
        if self.geometry is None:
            return Motions.of_elements([self.element])
        # with the name in the id, two kinds of motion of an image are independent
        return self.geometry.motions(seed, 0, [f"{self.name}: {image_id}"], side=side)


def select_motions(names: Sequence[str]) -> tuple[MotionSpec, ...]:
    """Return the motions with these names or from these files of transforms; all known ones without a name.

    `d4` means its seven elements, `none` no motion.

    Raises:
        ConfigError: an unknown name, or transforms that cannot be replayed.
    """
    known = known_motions()
    if not names:
        return tuple(known.values())
    if tuple(names) == (NONE,):
        return ()
    selected: dict[str, MotionSpec] = {}
    for name in names:
        found = [spec for spec in known.values() if name in (spec.name, "d4" if spec.family == TURNS else spec.name)]
        for spec in found or [_from_file(name)]:
            selected[spec.name] = spec
    return tuple(selected.values())


def motion_names() -> tuple[str, ...]:
    """Names accepted by `select_motions`, which also takes a file of transforms."""
    return ("d4", *known_motions(), *_recipes(), NONE)


@cache
def known_motions() -> dict[str, MotionSpec]:
    """Motions by name that need no file: D4, the deformations of `papers` alone and after D4, and `MILD`."""
    turns = [MotionSpec(name, TURNS, element=element) for element, name in ELEMENT_NAMES.items()]
    bends = [
        MotionSpec(prefix + short, BENDS, _geometry([*steps, bend]))
        for short, bend in _bends_of_papers().items()
        for prefix, steps in (("", []), ("d4, then ", [{"name": "D4"}]))
    ]
    others = [MotionSpec(name, OTHERS, _geometry([step])) for name, step in MILD.items()]
    return {spec.name: spec for spec in (*turns, *bends, *others)}


def _bends_of_papers() -> dict[str, dict[str, object]]:
    """The deformations that the augmentation `papers` chooses from, by short name."""
    steps = json.loads(Geometry.named("papers").text)
    members = [member for step in steps for member in step.get("one_of", ())]
    return {str(member["name"]).removesuffix("Transform").lower(): member for member in members}


def _geometry(steps: Sequence[object]) -> Geometry:
    return Geometry.named(json.dumps(list(steps)))


def _recipes() -> tuple[str, ...]:
    """The augmentations of the package that are recipes; D4 is measured element by element."""
    return tuple(name for name in geometry_names() if name not in (NONE, "d4"))


def _from_file(name: str) -> MotionSpec:
    """A file of transforms, or an augmentation of the package."""
    if name not in _recipes() and not Path(name).is_file():
        raise ConfigError(f"No motion is called {name!r}, and there is no such file. {known(name, motion_names())}")
    return MotionSpec(name, name, Geometry.named(name))
