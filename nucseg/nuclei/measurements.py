"""Measure a nucleus: position, size, shape and staining."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

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
    eccentricity: float
    """Of the ellipse with the same second moments: 0 for a circle, towards 1 for a line."""
    probability_mean: float
    """Mean nucleus probability over its pixels."""
    hematoxylin_od_mean: float
    """Mean optical density (base 10) of hematoxylin, as skimage's rgb2hed separates it (Ruifrok and Johnston 2001)."""
    eosin_od_mean: float
    """Mean optical density of eosin."""


_OD = 6.0
"""skimage returns amounts of stain as a share of six decades of absorbance."""


def measure(nucleus: NucleusMask, image: NDArray[np.uint8], probability: NDArray[np.float32]) -> Measurements:
    """Measure a nucleus on the part of the image (h, w, 3) and of the probability map (h, w) that its mask covers."""
    from skimage.color import rgb2hed
    from skimage.measure import regionprops

    (region,) = regionprops(nucleus.mask.astype(np.uint8))
    stains = _OD * rgb2hed(image[nucleus.mask][None])[0].mean(axis=0)
    y, x = region.centroid
    return Measurements(
        centroid_x=nucleus.x + float(x) + 0.5,
        centroid_y=nucleus.y + float(y) + 0.5,
        area=float(region.area),
        perimeter=float(region.perimeter),
        eccentricity=float(region.eccentricity),
        probability_mean=float(probability[nucleus.mask].mean(dtype=np.float64)),
        hematoxylin_od_mean=float(stains[0]),
        eosin_od_mean=float(stains[1]),
    )
