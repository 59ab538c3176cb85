"""Measure a nucleus: position, size, shape and staining."""

from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucseg.data.slides.resolution import SAME_SIDES
from nucseg.nuclei.stitching import NucleusMask


@dataclass(frozen=True, kw_only=True)
class Measurements:
    """Measurements of one nucleus, in pixels of its image; optical densities have no unit."""

    centroid_x: float
    centroid_y: float
    """Centre of mass; the first pixel of the image covers 0 to 1."""
    area: float
    """Number of pixels."""
    perimeter: float
    """Length of the border by skimage's estimator (Benkrid and Crookes 2000)."""
    perimeter_um: float | None
    """The same in microns; None if the resolution is not known."""
    eccentricity: float
    """Of the ellipse with the same second moments: 0 for a circle, towards 1 for a line. In the tissue: pixels that are
    not square are taken into account."""
    probability_mean: float
    """Mean nucleus probability over its pixels."""
    hematoxylin_od_mean: float
    """Mean optical density (base 10) of hematoxylin, as skimage's rgb2hed separates it (Ruifrok and Johnston 2001)."""
    eosin_od_mean: float
    """Mean optical density of eosin."""


_OD = 6.0
"""skimage returns amounts of stain as a share of six decades of absorbance."""


def measure(
    nucleus: NucleusMask,
    image: NDArray[np.uint8],
    probability: NDArray[np.float32],
    mpp: tuple[float, float] | None = None,
) -> Measurements:
    """Measure a nucleus.

    Args:
        nucleus: its mask (h, w).
        image: the part (h, w, 3) of the image that the mask covers.
        probability: the part (h, w) of the probability map.
        mpp: microns per pixel, down and across.
    """
    from skimage.color import rgb2hed

    stains = _OD * rgb2hed(image[nucleus.mask][None])[0].mean(axis=0)
    region = _region(nucleus.mask)
    mask, side = (nucleus.mask, None) if mpp is None else _with_square_pixels(nucleus.mask, mpp)
    square = region if mask is nucleus.mask else _region(mask)
    y, x = region.centroid
    return Measurements(
        centroid_x=nucleus.x + float(x) + 0.5,
        centroid_y=nucleus.y + float(y) + 0.5,
        area=float(region.area),
        perimeter=float(region.perimeter),
        perimeter_um=None if side is None else float(square.perimeter) * side,
        eccentricity=float(square.eccentricity),
        probability_mean=float(probability[nucleus.mask].mean(dtype=np.float64)),
        hematoxylin_od_mean=float(stains[0]),
        eosin_od_mean=float(stains[1]),
    )


def _region(mask: NDArray[np.bool_]) -> Any:
    from skimage.measure import regionprops

    (region,) = regionprops(mask.astype(np.uint8))
    return region


def _with_square_pixels(mask: NDArray[np.bool_], mpp: tuple[float, float]) -> tuple[NDArray[np.bool_], float]:
    """Resize a mask to square pixels of the same area, because skimage measures perimeters on square pixels only.

    Returns the mask and the side of its pixels in microns. On circles of 3 to 8 microns, of which pixels are up to four
    times as long as wide, perimeters are within 6%, as on square pixels; on pixels of the shorter side, the steps of
    the border would add up to 18%.
    """
    side = sqrt(mpp[0] * mpp[1])
    if max(mpp) <= SAME_SIDES * min(mpp):
        return mask, side
    from skimage.transform import resize

    padded = np.pad(mask, 2).astype(np.float32)
    shape = [max(round(extent * of_axis / side), 1) for extent, of_axis in zip(padded.shape, mpp, strict=True)]
    square = np.asarray(resize(padded, shape, order=1, mode="constant", anti_aliasing=True) >= 0.5)
    return (square if square.any() else mask), side
