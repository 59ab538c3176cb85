"""Recipes of views in TOML: transforms in order, with probabilities and ranges, and the number of variants.

variants = 4
seed = 0

[crop]                # optional: squares of these sizes, in shares of the shorter side
scale = [0.35, 1.0]

[glass]               # optional: glass over a part of the image
area = [0.1, 0.67]

[[transform]]
name = "HEDJitter"
p = 1.0
scale = [0.8, 1.2]
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from nucseg.errors import ConfigError, known
from nucseg.toml import parse_toml, read_toml
from nucseg.views.crop import Crop
from nucseg.views.glass import Glass
from nucseg.views.transforms import TRANSFORMS, Bounded, Range, Transform

MAX_VARIANTS = 999

CROP_SCALE = Bounded((0.35, 1.0), 0.05, 1.0)
"""Side of a crop, as a share of the image's shorter side."""

GLASS_AREA, GLASS_LEVEL = Bounded((0.1, 0.67), 0.0, 0.9), Bounded((180.0, 255.0), 0.0, 255.0)
"""Share of the image that is covered, and grey level of the cover."""

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

    name: str
    variants: int
    seed: int
    steps: tuple[Step, ...]
    crop: Crop | None = None
    """How to crop the image; None keeps all of it."""
    glass: Glass | None = None
    """How to cover a part of the image; None leaves it."""


def recipe_names() -> tuple[str, ...]:
    """Names of the built-in recipes."""
    folder = resources.files("nucseg.views") / "recipes"
    return tuple(sorted(entry.name[:-5] for entry in folder.iterdir() if entry.name.endswith(".toml")))


def load_recipe(name_or_path: str) -> PhotometricRecipe:
    """Load a built-in recipe by its name, or a TOML file, whose name without suffix becomes the recipe's.

    Raises ConfigError for an unknown recipe, a name not allowed for views, invalid TOML, unknown keys or transforms,
    and values out of range.
    """
    content = _read(name_or_path)
    name = name_or_path if name_or_path in recipe_names() else Path(name_or_path).name.removesuffix(".toml")
    _check_name(name, name_or_path)
    return _recipe(name, parse_toml(content, f"The recipe {name_or_path}"), f"The recipe {name_or_path}")


def _read(name: str) -> bytes:
    if name in recipe_names():
        return (resources.files("nucseg.views") / "recipes" / f"{name}.toml").read_bytes()
    try:
        return read_toml(name)
    except FileNotFoundError:
        valid = ("identity", "d4", *recipe_names())
        raise ConfigError(
            f"There are no views {name!r}, and no such file. {known(name, valid)} For a photometric recipe of your "
            "own, give its path, path/to/NAME.toml."
        ) from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"The recipe {name!r} cannot be read: {error}. Choose another file.") from None


def _check_name(name: str, path: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
        raise ConfigError(
            f"The views of {path} would be called {name!r}-1 and so on, but names of views contain letters, digits, _ "
            "and - only. Rename the file."
        )
    if name.lower() == "identity" or name.lower().startswith("d4"):
        raise ConfigError(
            f"The views of {path} would be called {name}-1 and so on, but identity and names that start with d4 are "
            "reserved for the unchanged image and its orientations. Rename the file."
        )


def _recipe(name: str, written: Mapping[str, Any], where: str) -> PhotometricRecipe:
    _check_keys(written, ("variants", "seed", "crop", "glass", "transform"), where)
    steps = written.get("transform", [])
    are_tables = isinstance(steps, list) and all(isinstance(step, dict) for step in steps)
    if not are_tables or not (steps or "crop" in written or "glass" in written):
        raise ConfigError(f"{where} names no transform. Add a table [[transform]] with name = {_listed(TRANSFORMS)}.")
    return PhotometricRecipe(
        name=name,
        variants=_integer(written.get("variants", 4), 1, MAX_VARIANTS, f"{where}: variants"),
        seed=_integer(written.get("seed", 0), 0, 2**32 - 1, f"{where}: seed"),
        steps=tuple(_step(step, f"{where}, transform {i}") for i, step in enumerate(steps, 1)),
        crop=_crop(written.get("crop"), f"{where}, crop"),
        glass=_glass(written.get("glass"), f"{where}, glass"),
    )


def _crop(written: object, where: str) -> Crop | None:
    if written is None:
        return None
    if not isinstance(written, dict):
        raise ConfigError(f"{where} must be a table, [crop] with scale = {list(CROP_SCALE.default)}, got {written!r}.")
    _check_keys(written, ("scale",), where)
    return Crop(_range(written.get("scale", list(CROP_SCALE.default)), CROP_SCALE, f"{where}: scale"))


def _glass(written: object, where: str) -> Glass | None:
    if written is None:
        return None
    if not isinstance(written, dict):
        raise ConfigError(f"{where} must be a table, [glass] with area = {list(GLASS_AREA.default)}, got {written!r}.")
    _check_keys(written, ("area", "level", "black"), where)
    area, level = (
        _range(written.get(name, list(bounds.default)), bounds, f"{where}: {name}")
        for name, bounds in (("area", GLASS_AREA), ("level", GLASS_LEVEL))
    )
    return Glass(area, level, _number(written.get("black", 0.2), 0.0, 1.0, f"{where}: black"))


def _step(written: Mapping[str, Any], where: str) -> Step:
    name = written.get("name")
    if not isinstance(name, str):
        raise ConfigError(f"{where} has no name. Name one of {_listed(TRANSFORMS)}.")
    if name not in TRANSFORMS:
        raise ConfigError(f"{where}: {_why_not(name)}")
    parameters = TRANSFORMS[name].parameters
    _check_keys(written, ("name", "p", *parameters), f"{where} ({name})")
    chance = _number(written.get("p", 1.0), 0.0, 1.0, f"{where} ({name}): p")
    ranges = {
        parameter: _range(written.get(parameter, list(bounds.default)), bounds, f"{where} ({name}): {parameter}")
        for parameter, bounds in parameters.items()
    }
    return Step(TRANSFORMS[name], chance, ranges)


def _why_not(name: str) -> str:
    if _GEOMETRIC.search(name):
        return (
            f"{name!r} moves or covers pixels, and masks would have to follow. Use it in the training's augmentation, "
            "which transforms image, masks and embedding together; a recipe of views changes colours, crops with "
            f"a table [crop], or covers with a table [glass]. Choose {_listed(TRANSFORMS)}."
        )
    return f"no transform is called {name!r}. {known(name, TRANSFORMS)}"


def _range(value: object, bounds: Bounded, what: str) -> Range:
    if not isinstance(value, list) or len(value) != 2:
        raise ConfigError(f"{what} must be a range [low, high], got {value!r}. The default is {bounds.default}.")
    low, high = (_number(limit, bounds.low, bounds.high, what) for limit in value)
    if low > high:
        raise ConfigError(f"{what} runs from {low} down to {high}. Write the lower limit first.")
    return low, high


def _number(value: object, low: float, high: float, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        raise ConfigError(f"{what} must be a number from {low} to {high}, got {value!r}.")
    if not low <= value <= high:
        raise ConfigError(f"{what} must be from {low} to {high}, got {value}.")
    return float(value)


def _integer(value: object, low: int, high: int, what: str) -> int:
    if type(value) is not int or not low <= value <= high:
        raise ConfigError(f"{what} must be an integer from {low} to {high}, got {value!r}.")
    return value


def _check_keys(written: Mapping[str, Any], valid: Iterable[str], where: str) -> None:
    for key in written:
        if key not in valid:
            raise ConfigError(f"{where} has an unknown key {key!r}. {known(key, valid)}")


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)
