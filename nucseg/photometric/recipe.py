"""The transforms of a photometric recipe, in order, with probabilities and ranges.

[[transform]]
name = "HEDJitter"
p = 1.0
scale = [0.8, 1.2]
"""

import random
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from nucseg.errors import ConfigError, known
from nucseg.photometric.ranges import Range, check_keys, read_number, read_range
from nucseg.photometric.stain_jitter import Image
from nucseg.photometric.transforms import TRANSFORMS, Transform

_RECIPES = resources.files("nucseg.photometric") / "recipes"

_GEOMETRIC = re.compile(
    "rotat|flip|transpos|affine|elastic|crop|randomscale|maxsize|perspective|distort|d4|symmetr|pad|resiz|translat"
    "|shear|warp|spline|zoom|gridshuffle|morpholog|dropout|erasing",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Step:
    """A transform of a recipe with its probability and ranges."""

    transform: Transform
    p: float
    """Probability that it is applied to an image."""
    parameters: Mapping[str, Range]
    """Name -> (low, high), for every parameter of the transform."""


def recipe_names() -> tuple[str, ...]:
    """Names of the built-in recipes."""
    return tuple(sorted(entry.name[:-5] for entry in _RECIPES.iterdir() if entry.name.endswith(".toml")))


def built_in(name: str) -> bytes:
    """The file of a built-in recipe."""
    return (_RECIPES / f"{name}.toml").read_bytes()


def read_steps(written: object, where: str) -> tuple[Step, ...]:
    """Read the tables [[transform]] of a recipe, which errors call `where`.

    Raises ConfigError where there is none, for an unknown transform or key, and for a value out of range.
    """
    if not isinstance(written, list) or not written or not all(isinstance(step, dict) for step in written):
        raise ConfigError(f"{where} names no transform. Add a table [[transform]] with name = {_listed(TRANSFORMS)}.")
    return tuple(_step(step, f"{where}, transform {i}") for i, step in enumerate(written, 1))


def apply_steps(steps: Sequence[Step], image: Image, draws: random.Random) -> Image:
    """Change the colours of an image (H, W, 3) uint8, with parameters drawn in the order of the steps."""
    for step in steps:
        # always draw, so that the draws of a step do not depend on whether another was applied
        is_applied = draws.random() < step.p
        change = step.transform.draw(draws, step.parameters)
        image = change(image) if is_applied else image
    return image


def _step(written: Mapping[str, Any], where: str) -> Step:
    name = written.get("name")
    if not isinstance(name, str):
        raise ConfigError(f"{where} has no name. Name one of {_listed(TRANSFORMS)}.")
    if name not in TRANSFORMS:
        raise ConfigError(f"{where}: {_why_not(name)}")
    parameters = TRANSFORMS[name].parameters
    check_keys(written, ("name", "p", *parameters), f"{where} ({name})")
    chance = read_number(written.get("p", 1.0), 0.0, 1.0, f"{where} ({name}): p")
    ranges = {
        parameter: read_range(written.get(parameter, list(bounds.default)), bounds, f"{where} ({name}): {parameter}")
        for parameter, bounds in parameters.items()
    }
    return Step(TRANSFORMS[name], chance, ranges)


def _why_not(name: str) -> str:
    if _GEOMETRIC.search(name):
        return (
            f"{name!r} moves or covers pixels, and masks would have to follow. Use it in the training's augmentation, "
            "which transforms image, masks and embedding together; a recipe of views only changes colours, or crops "
            f"with a table [crop]. Choose {_listed(TRANSFORMS)}."
        )
    return f"no transform is called {name!r}. {known(name, TRANSFORMS)}"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)
