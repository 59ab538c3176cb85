"""Photometric recipes in TOML: transforms in order, with probabilities and ranges.

p = 0.8               # share of the images that are changed at all

[[transform]]
name = "HEDJitter"
p = 1.0
scale = [0.8, 1.2]
"""

import json
import os
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
from nucseg.toml import parse_toml, read_toml

NONE = "none"
"""Name of the recipe that changes nothing."""

OF_VIEWS = ("variants", "seed")
"""Keys that only views use: how many there are, and what they are drawn from."""

OF_MASKS = ("crop", "glass")
"""Tables of views that masks follow."""

_VIEWS = ("crops", "glass")
"""Recipes that only `nucseg.views` has."""

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


@dataclass(frozen=True)
class PhotometricRecipe:
    """A validated recipe."""

    text: str = NONE
    """Its complete description: none, the name of a built-in recipe, or the content of a file as JSON."""
    steps: tuple[Step, ...] = ()
    p: float = 1.0
    """Probability that an image is changed at all."""

    @classmethod
    def named(cls, name: str) -> "PhotometricRecipe":
        """The built-in recipe of this name, the one in this file, or the one with this `text`.

        `variants` and `seed` are ignored, so that a file of `nucseg embed --views` can be used here too.

        Raises:
            ConfigError: there is no such recipe, it crops, or it is not valid.
        """
        if name == NONE:
            return cls()
        where = "The photometric recipe" if is_written_out(name) else f"The photometric recipe {name}"
        written = _parse_json(name) if is_written_out(name) else parse_toml(_read(name), where)
        for table in OF_MASKS:
            if table in written:
                raise ConfigError(
                    f"{where} has a table [{table}], but masks and cached embeddings stay as they are when the colours "
                    "of training images change. Remove the table, or embed the recipe as views: `nucseg embed --views`."
                )
        content = {key: value for key, value in written.items() if key not in OF_VIEWS}
        check_keys(content, ("p", "transform"), where)
        text = name if name in recipe_names() else json.dumps(content, sort_keys=True, default=str)
        return cls(text, *read_steps(content, where))

    def apply(self, image: Image, seed: int, epoch: int, sample_id: str) -> Image:
        """Change the colours of an image (H, W, 3) uint8 RGB.

        Args:
            image: the image.
            seed: of the training.
            epoch: counted from 0.
            sample_id: with seed and epoch, all that the draws depend on.
        """
        draws = random.Random(f"photometric/{seed}/{epoch}/{sample_id}")  # noqa: S311 - no secret
        return apply_steps(self.steps, image, draws, p=self.p)


def recipe_names() -> tuple[str, ...]:
    """Names of the built-in recipes."""
    return tuple(sorted(entry.name[:-5] for entry in _RECIPES.iterdir() if entry.name.endswith(".toml")))


def photometric_names() -> tuple[str, ...]:
    """Names that `PhotometricRecipe.named` accepts besides files."""
    return (NONE, *recipe_names())


def built_in(name: str) -> bytes:
    """The file of a built-in recipe."""
    return (_RECIPES / f"{name}.toml").read_bytes()


def is_written_out(text: str) -> bool:
    """Whether a text is the content of a recipe, not a file name; file names may begin with a brace too."""
    return text.startswith("{") and not os.path.isfile(text)  # noqa: PTH113 - Path raises if a name is too long


def read_steps(written: Mapping[str, Any], where: str) -> tuple[tuple[Step, ...], float]:
    """Read the tables [[transform]] of a recipe, which errors call `where`, and the probability of all together.

    Raises ConfigError where there is none, for an unknown transform or key, and for a value out of range.
    """
    steps = written.get("transform")
    if not isinstance(steps, list) or not steps or not all(isinstance(step, dict) for step in steps):
        raise ConfigError(f"{where} names no transform. Add a table [[transform]] with name = {_listed(TRANSFORMS)}.")
    read = tuple(_step(step, f"{where}, transform {i}") for i, step in enumerate(steps, 1))
    return read, read_number(written.get("p", 1.0), 0.0, 1.0, f"{where}: p")


def apply_steps(steps: Sequence[Step], image: Image, draws: random.Random, *, p: float = 1.0) -> Image:
    """Change an image (H, W, 3) uint8 with the probability `p`, with parameters drawn in the order of the steps."""
    changes = []
    for step in steps:
        # always draw, so that the draws of a step do not depend on whether another was applied
        is_applied = draws.random() < step.p
        change = step.transform.draw(draws, step.parameters)
        changes += [change] if is_applied else []
    if draws.random() < p:
        for change in changes:
            image = change(image)
    return image


def _read(name: str) -> bytes:
    if name in recipe_names():
        return built_in(name)
    try:
        if not name:
            raise FileNotFoundError  # as a path, it would be the current folder
        return read_toml(name)
    except FileNotFoundError:
        of_views = f" {name} is a recipe of --views." if name in _VIEWS else ""
        raise ConfigError(
            f"There is no photometric recipe {name!r}, and no such file.{of_views} {known(name, photometric_names())}"
        ) from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"The photometric recipe {name!r} cannot be read: {error}. Give another file.") from None


def _parse_json(text: str) -> dict[str, Any]:
    try:
        return dict(json.loads(text))
    except (ValueError, TypeError, RecursionError) as error:
        raise ConfigError(
            f"The photometric recipe {text!r} is neither a file nor JSON: {error}. Give a file."
        ) from None


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
            f"{name!r} moves or covers pixels, and masks would have to follow. Use it in the training's augmentation "
            "(--augmentation), which transforms image, masks and embedding together; a photometric recipe only changes "
            f"colours; for views, tables [crop] and [glass] crop and cover. Choose {_listed(TRANSFORMS)}."
        )
    return f"no transform is called {name!r}. {known(name, TRANSFORMS)}"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)
