"""Recipes of views in TOML: photometric transforms in order, the number of variants, a crop and glass.

variants = 4
seed = 0

[crop]                # optional: squares of these sizes, in shares of the shorter side
scale = [0.35, 1.0]

[glass]               # optional: glass over a part of the image
area = [0.1, 0.67]

[[transform]]         # see nucseg.photometric.recipe
name = "HEDJitter"
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from nucseg.errors import ConfigError, known
from nucseg.photometric import recipe as photometric
from nucseg.photometric.ranges import Bounded, check_keys, read_integer, read_number, read_range
from nucseg.photometric.recipe import Step, read_steps
from nucseg.toml import parse_toml, read_toml
from nucseg.views.crop import Crop
from nucseg.views.glass import Glass

MAX_VARIANTS = 999

CROP_SCALE = Bounded((0.35, 1.0), 0.05, 1.0)
"""Side of a crop, as a share of the image's shorter side."""

GLASS_AREA, GLASS_LEVEL = Bounded((0.1, 0.67), 0.0, 0.9), Bounded((180.0, 255.0), 0.0, 255.0)
"""Share of the image that is covered, and grey level of the cover."""

_RECIPES = resources.files("nucseg.views") / "recipes"


@dataclass(frozen=True)
class ViewRecipe:
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
    """Names of the built-in recipes: those of colours, and those that crop or cover."""
    own = (entry.name[:-5] for entry in _RECIPES.iterdir() if entry.name.endswith(".toml"))
    return tuple(sorted((*photometric.recipe_names(), *own)))


def load_recipe(name_or_path: str) -> ViewRecipe:
    """Load a built-in recipe by its name, or a TOML file, whose name without suffix becomes the recipe's.

    Raises ConfigError for an unknown recipe, a name not allowed for views, invalid TOML, unknown keys or transforms,
    and values out of range.
    """
    content = _read(name_or_path)
    name = name_or_path if name_or_path in recipe_names() else Path(name_or_path).name.removesuffix(".toml")
    _check_name(name, name_or_path)
    return _recipe(name, parse_toml(content, f"The recipe {name_or_path}"), f"The recipe {name_or_path}")


def _read(name: str) -> bytes:
    if name in photometric.recipe_names():
        return photometric.built_in(name)
    if name in recipe_names():
        return (_RECIPES / f"{name}.toml").read_bytes()
    try:
        return read_toml(name)
    except FileNotFoundError:
        valid = ("identity", "d4", *recipe_names())
        raise ConfigError(
            f"There are no views {name!r}, and no such file. {known(name, valid)} For a view recipe of your own, "
            "give its path, path/to/NAME.toml."
        ) from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"The recipe {name!r} cannot be read: {error}. Choose another file.") from None


def _check_name(name: str, path: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
        raise ConfigError(
            f"The views of {path} would be called {name!r}-1 and so on, but names of views contain letters, digits, _ "
            "and - only. Rename the file."
        )
    if name in recipe_names() and name != path:
        raise ConfigError(
            f"The views of {path} would be called {name}-1 and so on, as those of the recipe {name} of the package. "
            "Rename the file."
        )
    if name.lower() == "identity" or name.lower().startswith("d4"):
        raise ConfigError(
            f"The views of {path} would be called {name}-1 and so on, but identity and names that start with d4 are "
            "reserved for the unchanged image and its orientations. Rename the file."
        )


def _recipe(name: str, written: Mapping[str, Any], where: str) -> ViewRecipe:
    check_keys(written, (*photometric.OF_VIEWS, *photometric.OF_MASKS, "p", "transform"), where)
    keeps_colours = "transform" not in written and any(key in written for key in photometric.OF_MASKS)
    # the common probability is left out: a variant that is the image itself would be an encoding for nothing
    steps = () if keeps_colours else read_steps(written, where)[0]
    return ViewRecipe(
        name=name,
        steps=steps,
        variants=read_integer(written.get("variants", 4), 1, MAX_VARIANTS, f"{where}: variants"),
        seed=read_integer(written.get("seed", 0), 0, 2**32 - 1, f"{where}: seed"),
        crop=_crop(written.get("crop"), f"{where}, crop"),
        glass=_glass(written.get("glass"), f"{where}, glass"),
    )


def _crop(written: object, where: str) -> Crop | None:
    if written is None:
        return None
    if not isinstance(written, dict):
        raise ConfigError(f"{where} must be a table, [crop] with scale = {list(CROP_SCALE.default)}, got {written!r}.")
    check_keys(written, ("scale",), where)
    return Crop(read_range(written.get("scale", list(CROP_SCALE.default)), CROP_SCALE, f"{where}: scale"))


def _glass(written: object, where: str) -> Glass | None:
    if written is None:
        return None
    if not isinstance(written, dict):
        raise ConfigError(f"{where} must be a table, [glass] with area = {list(GLASS_AREA.default)}, got {written!r}.")
    check_keys(written, ("area", "level", "black"), where)
    area, level = (
        read_range(written.get(name, list(bounds.default)), bounds, f"{where}: {name}")
        for name, bounds in (("area", GLASS_AREA), ("level", GLASS_LEVEL))
    )
    return Glass(area, level, read_number(written.get("black", 0.2), 0.0, 1.0, f"{where}: black"))
