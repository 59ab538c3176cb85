"""The photometric transforms that a recipe may name: their parameters, what each draws, and what it does."""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from nucseg.albumentations import load_albumentations
from nucseg.photometric.compression import blur, compress
from nucseg.photometric.ranges import Bounded, Range
from nucseg.photometric.stain_jitter import Image, jitter_stains
from nucseg.photometric.tables import lighten_background, scale_channels, scale_density

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


def _optical_density(draws: random.Random, ranges: Mapping[str, Range]) -> Change:
    scale = draws.uniform(*ranges["scale"])
    return lambda image: scale_density(image, scale)


def _white_balance(draws: random.Random, ranges: Mapping[str, Range]) -> Change:
    factors = [draws.uniform(*ranges["factor"]) for _ in range(3)]
    return lambda image: scale_channels(image, factors)


def _white_background(draws: random.Random, ranges: Mapping[str, Range]) -> Change:
    share = draws.uniform(*ranges["share"])
    return lambda image: lighten_background(image, share)


def _blur(draws: random.Random, ranges: Mapping[str, Range]) -> Change:
    sigma = draws.uniform(*ranges["sigma"])
    return lambda image: blur(image, sigma)


def _compression(draws: random.Random, ranges: Mapping[str, Range]) -> Change:
    quality = round(draws.uniform(*ranges["quality"]))
    return lambda image: compress(image, quality)


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
        Transform("OpticalDensity", "OpticalDensity 1", {"scale": Bounded((0.3, 1.3), 0.0, 4.0)}, _optical_density),
        Transform("WhiteBalance", "WhiteBalance 1", {"factor": Bounded((0.85, 1.15), 0.0, 4.0)}, _white_balance),
        Transform("WhiteBackground", "WhiteBackground 1", {"share": Bounded((0.0, 1.0), 0.0, 1.0)}, _white_background),
        Transform("GaussianBlur", "GaussianBlur 1", {"sigma": Bounded((0.0, 1.5), 0.0, 16.0)}, _blur),
        Transform(
            "ImageCompression", "ImageCompression 1", {"quality": Bounded((40.0, 95.0), 1.0, 100.0)}, _compression
        ),
    )
}
"""By name in a recipe."""
