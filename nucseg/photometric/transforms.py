"""The photometric transforms that a recipe may name: their parameters, what each draws, and what it does."""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from nucseg.albumentations import load_albumentations
from nucseg.photometric.ranges import Bounded, Range
from nucseg.photometric.stain_jitter import Image, jitter_stains

Change = Callable[[Image], Image]
Draw = Callable[[random.Random, Mapping[str, Range]], Change]

ALBUMENTATIONS = "albumentations 2.0.8"
"""Part of what views record, since its arithmetic determines the pixels; change it with the pinned dependency."""


@dataclass(frozen=True)
class Transform:
    """A transform of the allow-list."""

    name: str
    label: str
    """The name and version of its arithmetic, which views record."""
    parameters: Mapping[str, Bounded]
    draw: Draw
    """Draws from a recipe's ranges, always the same number of times, and returns the resulting change of an image."""


def _hed_jitter(draws: random.Random, ranges: Mapping[str, Range]) -> Change:
    scale = [draws.uniform(*ranges["scale"]) for _ in range(3)]
    shift = [draws.uniform(*ranges["shift"]) for _ in range(3)]
    return lambda image: jitter_stains(image, scale, shift)


def _gamma(draws: random.Random, ranges: Mapping[str, Range]) -> Change:
    percent = 100 * draws.uniform(*ranges["gamma"])
    return lambda image: _albumentations("RandomGamma", image, gamma_limit=(percent, percent))


def _brightness_contrast(draws: random.Random, ranges: Mapping[str, Range]) -> Change:
    brightness, contrast = draws.uniform(*ranges["brightness"]), draws.uniform(*ranges["contrast"])
    limits = {"brightness_limit": (brightness, brightness), "contrast_limit": (contrast, contrast)}
    return lambda image: _albumentations("RandomBrightnessContrast", image, **limits)


def _clahe(draws: random.Random, ranges: Mapping[str, Range]) -> Change:
    clip, tiles = draws.uniform(*ranges["clip"]), round(draws.uniform(*ranges["tiles"]))
    return lambda image: _albumentations("CLAHE", image, clip_limit=(clip, clip), tile_grid_size=(tiles, tiles))


def _albumentations(name: str, image: Image, **parameters: Any) -> Image:
    """Apply an Albumentations transform with fixed parameters, which were drawn before."""
    changed: Image = getattr(load_albumentations(), name)(**parameters, p=1.0)(image=image)["image"]
    return changed


TRANSFORMS: Mapping[str, Transform] = {
    transform.name: transform
    for transform in (
        Transform(
            "HEDJitter",
            "HEDJitter 1",  # increase when the same draw gives other pixels
            {"scale": Bounded((0.8, 1.2), 0.0, 4.0), "shift": Bounded((-0.02, 0.02), -1.0, 1.0)},
            _hed_jitter,
        ),
        Transform("RandomGamma", f"RandomGamma of {ALBUMENTATIONS}", {"gamma": Bounded((0.8, 1.2), 0.1, 10.0)}, _gamma),
        Transform(
            "RandomBrightnessContrast",
            f"RandomBrightnessContrast of {ALBUMENTATIONS}",
            {"brightness": Bounded((-0.2, 0.2), -1.0, 1.0), "contrast": Bounded((-0.2, 0.2), -1.0, 1.0)},
            _brightness_contrast,
        ),
        Transform(
            "CLAHE",
            f"CLAHE of {ALBUMENTATIONS}",
            {"clip": Bounded((1.0, 2.0), 1.0, 40.0), "tiles": Bounded((8.0, 8.0), 2.0, 64.0)},
            _clahe,
        ),
    )
}
"""By name in a recipe."""
