"""How large a network must see an image, by what is known of its resolution and of that of the training images."""

from __future__ import annotations

from dataclasses import dataclass

from nucseg.errors import ConfigError

MOST = 8.0
"""Ratios of resolutions beyond this are refused: one of the two is wrong, or nothing can be seen."""

SAME = 1.02
"""Resolutions that are no further apart than this count as one: images are not resampled for less."""


@dataclass(frozen=True)
class Scale:
    """How an image is resized before tiles are cut out of it."""

    ratio: float
    """Pixels of the reading grid to one pixel of the image, a side."""
    caution: str = ""
    """What keeps the magnification from being certain; empty where it is."""


def choose_scale(mpp: float | None, trained_mpp: float | None) -> Scale:
    """Choose the scale for an image of a resolution in microns a pixel; None is unknown, and read as it is.

    Raises:
        ConfigError: the two are too far apart.
    """
    if mpp is None or trained_mpp is None:
        said = {"the image": ("--mpp", mpp), "the training images": ("--trained-mpp", trained_mpp)}
        unknown = {name: option for name, (option, value) in said.items() if value is None}
        return Scale(
            1.0,
            f"The microns a pixel of {' and of '.join(unknown)} are not known, so the image is taken to be as "
            "magnified as those of the training. Where it is not, counts and outlines are wrong: say it with "
            f"{' and '.join(unknown.values())}.",
        )
    ratio = mpp / trained_mpp
    if not 1 / MOST <= ratio <= MOST:
        raise ConfigError(
            f"The image has {mpp:g} microns a pixel, the training images had {trained_mpp:g}: more than a factor of "
            f"{MOST:g} apart. Correct the one that is wrong (--mpp, --trained-mpp), or take a run that was trained at "
            "this magnification."
        )
    return Scale(1.0 if 1 / SAME <= ratio <= SAME else ratio)
