"""Nuclei as polygons along the edges of their pixels: valid, of exactly the area of the mask, holes kept."""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Ring = list[tuple[int, int]]
"""Corners (x, y), the first one again at the end."""

_TURN_LEFT = {(1, 0): (0, -1), (0, -1): (-1, 0), (-1, 0): (0, 1), (0, 1): (1, 0)}
"""Direction (x, y) -> that to its left, seen with y downwards."""


def outline(mask: NDArray[np.bool_], *, x: int = 0, y: int = 0) -> list[Ring]:
    """Trace the outline of a mask (H, W) whose pixels are connected by edges: its outer ring, then those of its holes.

    Pixel (x, y) covers [x, x + 1) by [y, y + 1); `x` and `y` say where the mask begins. Rings run along the edges of
    pixels with the mask on their right as seen with y downwards: the sum over a ring of x dy - y dx is positive
    outside and negative around holes, as GeoJSON wants it. Where two pixels of the mask meet at a corner alone, rings
    pass on either side of it, so that none touches itself: the polygon is valid.
    """
    rings = [_straightened(ring) for ring in _rings(mask)]
    rings.sort(key=_doubled_area, reverse=True)  # the outer ring encloses the others, and is the only positive one
    return [[(x + corner[0], y + corner[1]) for corner in ring] for ring in rings]


def _rings(mask: NDArray[np.bool_]) -> list[Ring]:
    """Closed walks along the edges of the mask, all corners of pixels on the way."""
    ahead = _steps(mask)
    rings = []
    while ahead:
        start = next(iter(ahead))
        place, direction = start, ahead[start][0]
        ring = [start]
        while True:
            ahead[place].remove(direction)
            if not ahead[place]:
                del ahead[place]
            place = place[0] + direction[0], place[1] + direction[1]
            ring.append(place)
            if place == start and not (place in ahead and _TURN_LEFT[direction] in ahead[place]):
                break
            ways = ahead[place]
            # at a corner where four edges meet, to the left: on to the pixel that touches this one there
            direction = _TURN_LEFT[direction] if _TURN_LEFT[direction] in ways else ways[0]
        rings.append(ring)
    return rings


def _steps(mask: NDArray[np.bool_]) -> dict[tuple[int, int], list[tuple[int, int]]]:
    """Corner (x, y) -> the directions in which edges of the mask leave it, the mask on their right."""
    padded = np.pad(mask, 1).astype(np.int8)
    ahead: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
    down = np.diff(padded, axis=0)[:, 1:-1]  # 1 where the mask begins below a corner row, -1 where it ends
    across = np.diff(padded, axis=1)[1:-1]
    for y, x in zip(*(part.tolist() for part in np.nonzero(down == 1)), strict=True):
        ahead[x, y].append((1, 0))
    for y, x in zip(*(part.tolist() for part in np.nonzero(down == -1)), strict=True):
        ahead[x + 1, y].append((-1, 0))
    for y, x in zip(*(part.tolist() for part in np.nonzero(across == -1)), strict=True):
        ahead[x, y].append((0, 1))
    for y, x in zip(*(part.tolist() for part in np.nonzero(across == 1)), strict=True):
        ahead[x, y + 1].append((0, -1))
    return ahead


def _straightened(ring: Ring) -> Ring:
    """The ring without the corners at which it goes straight on."""
    around = ring[:-1]
    kept = [
        here
        for before, here, after in zip(around[-1:] + around[:-1], around, around[1:] + around[:1], strict=True)
        if (here[0] - before[0], here[1] - before[1]) != (after[0] - here[0], after[1] - here[1])
    ]
    return [*kept, kept[0]]


def _doubled_area(ring: Ring) -> int:
    return sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in pairwise(ring))
