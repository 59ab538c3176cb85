"""Nuclei as polygons along the edges of their pixels: valid, with exactly the area of the mask, holes included."""

from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from scipy import ndimage

from nucseg.metrics.instances import InstanceMap
from nucseg.metrics.overlap import Mask

Ring = list[tuple[int, int]]
"""Corners (x, y); the first one is repeated at the end."""

_LEFT_OF = {(1, 0): (0, -1), (0, -1): (-1, 0), (-1, 0): (0, 1), (0, 1): (1, 0)}
"""Direction (x, y) -> the direction to its left, seen with y downwards."""


def outline(mask: Mask, *, x: int = 0, y: int = 0) -> list[Ring]:
    """Trace the outline of a mask (H, W): if it is 4-connected, its outer ring, followed by those of its holes.

    Pixel (x, y) covers [x, x + 1) by [y, y + 1); the arguments `x` and `y` are the position of the mask's first pixel.
    Rings run along the edges of pixels with the mask on their right, as seen with y downwards: the sum of x dy - y dx
    over a ring is positive for an outer ring and negative for a hole, as GeoJSON requires. Where two pixels of the mask
    touch only at a corner, rings pass on either side of the corner, so that none touches itself and the polygon is
    valid.
    """
    rings = [_without_straight_points(ring) for ring in _rings(mask)]
    rings.sort(key=_doubled_area, reverse=True)  # the outer ring is the only one with a positive area
    return [[(x + corner[0], y + corner[1]) for corner in ring] for ring in rings]


def outlines(instances: InstanceMap) -> Iterator[Ring]:
    """Trace the rings of every nucleus of an instance map (H, W), see `outline`."""
    for label, box in enumerate(ndimage.find_objects(instances), start=1):
        if box is not None:
            yield from outline(instances[box] == label, x=box[1].start, y=box[0].start)


def _rings(mask: Mask) -> list[Ring]:
    """Closed walks along the edges of the mask, with every pixel corner on the way."""
    directions_at = _directions(mask)
    rings = []
    while directions_at:
        start = next(iter(directions_at))
        place, direction = start, directions_at[start][0]
        ring = [start]
        while True:
            directions_at[place].remove(direction)
            if not directions_at[place]:
                del directions_at[place]
            place = place[0] + direction[0], place[1] + direction[1]
            ring.append(place)
            if place == start and not (place in directions_at and _LEFT_OF[direction] in directions_at[place]):
                break
            choices = directions_at[place]
            # where four edges meet, turn left: on to the pixel that touches this one at the corner
            direction = _LEFT_OF[direction] if _LEFT_OF[direction] in choices else choices[0]
        rings.append(ring)
    return rings


def _directions(mask: Mask) -> dict[tuple[int, int], list[tuple[int, int]]]:
    """Corner (x, y) -> directions of the edges of the mask that start there, with the mask on their right."""
    padded = np.pad(mask, 1).astype(np.int8)
    down = np.diff(padded, axis=0)[:, 1:-1]  # 1 where the mask begins below a line of corners, -1 where it ends
    across = np.diff(padded, axis=1)[1:-1]
    directions_at: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
    for is_edge, dx, dy, direction in (
        (down == 1, 0, 0, (1, 0)),
        (down == -1, 1, 0, (-1, 0)),
        (across == -1, 0, 0, (0, 1)),
        (across == 1, 0, 1, (0, -1)),
    ):
        for y, x in np.argwhere(is_edge).tolist():
            directions_at[x + dx, y + dy].append(direction)
    return directions_at


def _without_straight_points(ring: Ring) -> Ring:
    corners = ring[:-1]
    kept = [
        here
        for before, here, after in zip(corners[-1:] + corners[:-1], corners, corners[1:] + corners[:1], strict=True)
        if (here[0] - before[0], here[1] - before[1]) != (after[0] - here[0], after[1] - here[1])
    ]
    return [*kept, kept[0]]


def _doubled_area(ring: Ring) -> int:
    return sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in pairwise(ring))
