"""Outlines of nuclei as SVG paths, for pages on which images are enlarged."""

from __future__ import annotations

from itertools import pairwise

from nucseg.metrics.instances import InstanceMap
from nucseg.nuclei.polygons import Ring, outlines


def outline_path(instances: InstanceMap) -> str:
    """Outline each nucleus of an instance map (H, W): the data of one SVG path, empty if there are no nuclei.

    Coordinates are pixels from the top left corner of the image, which covers W x H units.
    """
    return "".join(map(_closed_path, outlines(instances)))


def _closed_path(ring: Ring) -> str:
    steps = (f"h{x1 - x0}" if y0 == y1 else f"v{y1 - y0}" for (x0, y0), (x1, y1) in pairwise(ring[:-1]))
    return "M{} {}{}z".format(*ring[0], "".join(steps))
