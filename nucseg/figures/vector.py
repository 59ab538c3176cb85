"""Outlines of nuclei as paths of SVG, for pages on which pictures are looked at closely."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from skimage.measure import find_contours, regionprops

from nucseg.figures.nuclei import InstanceMap

STEPS_PER_PX = 2
"""Units of a path to one pixel: the corners of an outline lie in the middle of pixel edges."""


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
    # the padding moves by one pixel, and the middle of a pixel lies half a pixel from its corner
    points = np.rint((line[:-1] - 0.5 + corner) * STEPS_PER_PX).astype(int)[:, ::-1]  # the last point is the first one
    steps = points - np.roll(points, 1, axis=0)
    directions = np.sign(steps)
    turns = (directions != np.roll(directions, -1, axis=0)).any(axis=1)
    corners = points[turns]
    then = " ".join(f"{dx} {dy}" for dx, dy in np.diff(corners, axis=0).tolist())
    return "M{} {}l{}z".format(*corners[0].tolist(), then)
