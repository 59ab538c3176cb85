"""Choose how to rescale an image, from its resolution and that of the training images."""

from __future__ import annotations

from dataclasses import dataclass

from nucseg.data.slides import Mpp, square_side
from nucseg.errors import ConfigError

MAX_RATIO = 8.0
"""Larger ratios of resolutions are refused: one of the two is wrong, or nuclei are not visible."""

SAME_RATIO = 1.02
"""Resolutions within this ratio count as the same; the image is not resampled."""


@dataclass(frozen=True)
class Scale:
    """How an image is rescaled before it is cut into tiles."""

    ratio: tuple[float, float]
    """Pixels of the reading grid per pixel of the image, down and across. The reading grid has square pixels."""
    warning: str = ""
    """Why the magnification is uncertain; empty if it is known."""


def choose_scale(mpp: Mpp | None, trained_mpp: float | None) -> Scale:
    """Choose the scale for an image of (down, across) microns per pixel.

    If a resolution is not known, the image is not rescaled, except that its pixels are made square.

    Raises:
        ConfigError: the two are too far apart.
    """
    if mpp is None or trained_mpp is None:
        given = {"the image": ("--mpp", mpp), "the training images": ("--trained-mpp", trained_mpp)}
        unknown = {name: option for name, (option, value) in given.items() if value is None}
        return Scale(
            (1.0, 1.0) if mpp is None or square_side(mpp) else (mpp[0] / min(mpp), mpp[1] / min(mpp)),
            f"The microns per pixel of {' and of '.join(unknown)} are not known, so the image is assumed to have the "
            "magnification of the training images. If it has not, counts and outlines are wrong: set "
            f"{' and '.join(unknown.values())}.",
        )
    down, across = (side / trained_mpp for side in mpp)
    if not 1 / MAX_RATIO <= min(down, across) <= max(down, across) <= MAX_RATIO:
        raise ConfigError(
            f"The image has {mpp_text(mpp)} microns per pixel, the training images {trained_mpp:g}: more than a factor "
            f"of {MAX_RATIO:g} apart. Correct the wrong one (--mpp, --trained-mpp), or use a run that was trained at "
            "this magnification."
        )
    is_same = min(down, across) >= 1 / SAME_RATIO and max(down, across) <= SAME_RATIO
    return Scale((1.0, 1.0) if is_same else (down, across))


def shape_note(mpp: Mpp | None) -> str:
    """What to say about pixels that are not square; nothing about others."""
    if mpp is None or square_side(mpp):
        return ""
    return (
        f"Pixels are {mpp_text(mpp)} microns (across x down): the network gets the image with square pixels, and "
        "measurements in microns use both sides."
    )


def mpp_text(mpp: Mpp) -> str:
    """'0.25', or '0.5 x 1' (across x down) for pixels that are not square."""
    side = square_side(mpp)
    return f"{mpp[1]:g} x {mpp[0]:g}" if side is None else f"{side:g}"
