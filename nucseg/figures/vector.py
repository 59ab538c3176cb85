"""Outlines of nuclei as paths of SVG, for pages on which pictures are looked at closely."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from skimage.measure import approximate_polygon, find_contours, regionprops

from nucseg.figures.nuclei import InstanceMap

STEPS_PER_PX = 2
"""Units of a path to one pixel: the corners of an outline lie in the middle of pixel edges."""
TOLERANCE_PX = 0.4
"""How far a simplified outline may lie from the exact one."""


def outline_path(instances: InstanceMap) -> str:
    """Outline every nucleus of a (H, W) instance map on its own: the data of one SVG path, empty without nuclei.

    Coordinates are half pixels from the top left corner of the image, so that it covers 2 W x 2 H units.
    """
    return "".join(
        _polygon(line, region.bbox[:2])
        for region in regionprops(instances)
        for line in find_contours(np.pad(region.image, 1).astype(np.float64), 0.5)
    )


def _polygon(line: NDArray[np.float64], corner: tuple[int, int]) -> str:
    """Close a contour of a padded region, (P, 2) rows and columns, whose top left pixel is `corner`."""
    simple = approximate_polygon(line, TOLERANCE_PX)[:-1]  # the last point is the first one
    # the padding moves by one pixel, and the middle of a pixel lies half a pixel from its corner
    points = np.rint((simple - 0.5 + corner) * STEPS_PER_PX).astype(int)[:, ::-1].tolist()
    if len(points) < 3:
        return ""
    steps = [(after[0] - before[0], after[1] - before[1]) for before, after in pairwise(points)]
    return "M{} {}l".format(*points[0]) + " ".join(f"{dx} {dy}" for dx, dy in steps) + "z"
