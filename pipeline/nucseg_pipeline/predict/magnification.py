"""Choose how to rescale an image, from its resolution and that of the training images."""

from __future__ import annotations

from dataclasses import dataclass

from nucseg.errors import ConfigError

MAX_RATIO = 8.0
"""Larger ratios of resolutions are refused: one of the two is wrong, or nuclei are not visible."""

SAME_RATIO = 1.02
"""Resolutions within this ratio count as the same; the image is not resampled."""


@dataclass(frozen=True)
class Scale:
    """How an image is rescaled before it is cut into tiles."""

    ratio: float
    """Pixels of the reading grid per pixel of the image, along each axis."""
    warning: str = ""
    """Why the magnification is uncertain; empty if it is known."""


def choose_scale(mpp: float | None, trained_mpp: float | None) -> Scale:
    """Choose the scale for an image from resolutions in microns per pixel; if one is None, the image is not rescaled.

    Raises:
        ConfigError: the two are too far apart.
    """
    if mpp is None or trained_mpp is None:
        given = {"the image": ("--mpp", mpp), "the training images": ("--trained-mpp", trained_mpp)}
        unknown = {name: option for name, (option, value) in given.items() if value is None}
        return Scale(
            1.0,
            f"The microns per pixel of {' and of '.join(unknown)} are not known, so the image is assumed to have the "
            "magnification of the training images. If it has not, counts and outlines are wrong: set "
            f"{' and '.join(unknown.values())}.",
        )
    ratio = mpp / trained_mpp
    if not 1 / MAX_RATIO <= ratio <= MAX_RATIO:
        raise ConfigError(
            f"The image has {mpp:g} microns per pixel, the training images {trained_mpp:g}: more than a factor of "
            f"{MAX_RATIO:g} apart. Correct the wrong one (--mpp, --trained-mpp), or use a run that was trained at this "
            "magnification."
        )
    return Scale(1.0 if 1 / SAME_RATIO <= ratio <= SAME_RATIO else ratio)
