"""The changes of colour that are measured: single ones with fixed parameters, and recipes with draws as in training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

import numpy as np

from nucseg.errors import ConfigError, known
from nucseg.photometric import PhotometricRecipe
from nucseg.photometric.recipe import Step, recipe_names
from nucseg.photometric.stain_jitter import Image
from nucseg.photometric.tables import scale_channels
from nucseg.photometric.transforms import TRANSFORMS, Change, Transform
from nucseg_pipeline.config.fidelity import NONE

BRIGHTNESS, COLOUR, DETAIL, RECIPES = (
    "brightness and contrast", "stain and colour", "blur and compression", "recipes",
)  # fmt: skip
"""Families of changes."""

ALL = "all"
"""The value of `photometric` that measures every known change."""

DEFAULT = ("density x0.5", "channels 15 %", "white background", "blur 2 px", "JPEG 50")
"""Measured with the recipes unless others are named: a strong change of each kind."""


@dataclass(frozen=True)
class ColourSpec:
    """A named change of colour."""

    name: str
    family: str
    recipe: PhotometricRecipe

    def change(self, seed: int, image_id: str) -> Change:
        """The change of one image: what a training with this seed draws in its first epoch for an image it changes."""
        return partial(replace(self.recipe, p=1.0).apply, seed=seed, epoch=0, sample_id=image_id)


def select_colours(names: Sequence[str]) -> tuple[ColourSpec, ...]:
    """Return the changes with these names or from these files of transforms; the default ones without a name.

    `all` means all known ones, `none` no change.

    Raises:
        ConfigError: an unknown name, or a file that is no recipe.
    """
    if tuple(names) == (NONE,):
        return ()
    known_specs = known_colours()
    selected: dict[str, ColourSpec] = {}
    for name in names or (*DEFAULT, *recipe_names()):
        specs = known_specs.values() if name == ALL else [known_specs.get(name) or _from_file(name)]
        selected |= {spec.name: spec for spec in specs}
    return tuple(selected.values())


def colour_names() -> tuple[str, ...]:
    """Names accepted by `select_colours`, which also takes a file of transforms."""
    return (ALL, *known_colours(), NONE)


@cache
def known_colours() -> dict[str, ColourSpec]:
    """The changes that need no file, by name."""
    fixed = {BRIGHTNESS: _brightness(), COLOUR: _colour(), DETAIL: _detail()}
    specs = [
        ColourSpec(name, family, PhotometricRecipe(name, steps))
        for family, changes in fixed.items()
        for name, steps in changes.items()
    ]
    recipes = [ColourSpec(name, RECIPES, PhotometricRecipe.named(name)) for name in recipe_names()]
    return {spec.name: spec for spec in (*specs, *recipes)}


Changes = dict[str, tuple[Step, ...]]
"""Name -> transforms with fixed parameters."""


def _brightness() -> Changes:
    # a gamma correction with the exponent 0.7 is the same as density x0.7
    densities = {f"density x{factor}": (_fixed("OpticalDensity", scale=factor),) for factor in (0.3, 0.5, 0.7, 1.3)}
    levels = {
        f"{name} {value:+}": (_fixed("RandomBrightnessContrast", **{"brightness": 0, "contrast": 0, name: value}),)
        for name in ("brightness", "contrast")
        for value in (-0.2, 0.2)
    }
    return {**densities, **levels, "CLAHE 2": (_fixed("CLAHE", clip=2, tiles=8),)}


def _colour() -> Changes:
    # red up and green down by the same share, blue unchanged
    channels = {
        f"channels {percent} %": (_step(partial(scale_channels, factors=(1 + percent / 100, 1 - percent / 100, 1))),)
        for percent in (10, 15)
    }
    white = _fixed("WhiteBackground", share=1)
    return {
        **channels,
        "gray": (_step(_gray),),
        "white background": (white,),
        "white background, density x0.5": (white, _fixed("OpticalDensity", scale=0.5)),
    }


def _detail() -> Changes:
    blurs = {f"blur {sigma} px": (_fixed("GaussianBlur", sigma=sigma),) for sigma in (1, 2)}
    qualities = {f"JPEG {quality}": (_fixed("ImageCompression", quality=quality),) for quality in (80, 50)}
    return {**blurs, **qualities}


def _fixed(name: str, **values: float) -> Step:
    """A transform of recipes that is always applied, with fixed parameters."""
    return Step(TRANSFORMS[name], 1.0, {parameter: (value, value) for parameter, value in values.items()})


def _step(change: Change) -> Step:
    """A change that recipes do not have."""
    return Step(Transform("", "", {}, lambda draws, ranges: change), 1.0, {})


def _gray(image: Image) -> Image:
    import cv2

    return np.asarray(cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB), np.uint8)


def _from_file(name: str) -> ColourSpec:
    if not Path(name).is_file():
        raise ConfigError(
            f"No change of colour is called {name!r}, and there is no such file. {known(name, colour_names())}"
        )
    return ColourSpec(name, RECIPES, PhotometricRecipe.named(name))
