"""A reduced picture of an image with the outlines of its nuclei, drawn while they are found."""

from __future__ import annotations

from io import BytesIO
from math import ceil

import numpy as np
from numpy.typing import NDArray

from nucseg.data.slides import Slide

LONGEST_PX = 2048
"""Longest side of the picture."""

QUALITY = 92
"""Quality of the JPEG."""

SOURCE_PX = 1 << 22
"""Pixels of the image that are read at a time to be reduced."""

WHITE, DARK = np.array([255, 255, 255], np.float32), np.array([74, 42, 110], np.float32)
"""A nucleus has a white outline, as in the figures, and a dark violet one around it for contrast on light tissue."""


class Overlay:
    """Accumulates how much of each pixel of the picture is covered by outlines."""

    def __init__(self, size: tuple[int, int]) -> None:
        """Start without outlines, for an image of (H, W)."""
        self._scale = min(1.0, LONGEST_PX / max(size))
        self._size = size
        self._shape = tuple(max(ceil(extent * self._scale), 1) for extent in size)
        self._inner, self._outer = np.zeros((2, *self._shape), np.float32)
        self._first = 0
        self._above: NDArray[np.int32] = np.zeros((0, size[1]), np.int32)

    def add(self, instances: NDArray[np.int32]) -> None:
        """Add the outlines in the next rows (h, W) of the instance map."""
        rows = np.concatenate([self._above, instances])
        first = self._first - len(self._above)
        inner, outer = _edges(rows)
        # the lower neighbours of the last row come with the next rows
        self._cover(self._inner, inner[len(self._above) :], self._first)
        self._cover(self._outer, outer[len(self._above) :], self._first)
        if len(self._above):
            late = _edges(rows[: len(self._above) + 1])
            before = _edges(self._above)
            for cover, now, then in zip((self._inner, self._outer), late, before, strict=True):
                self._cover(cover, (now & ~np.pad(then, ((0, 1), (0, 0))))[: len(self._above)], first)
        self._first += len(instances)
        self._above = rows[-1:].copy()

    def picture(self, slide: Slide) -> bytes:
        """Render the image with the outlines as a JPEG."""
        from PIL import Image

        pixels = _reduced(slide, (self._shape[0], self._shape[1])).astype(np.float32)
        for colour, cover in ((DARK, self._outer), (WHITE, self._inner)):
            # a line through a pixel of the picture covers one image pixel per row or column, of 1 / scale
            alpha = (cover * self._scale).clip(0, 1)[..., None]
            pixels += alpha * (colour - pixels)
        buffer = BytesIO()
        Image.fromarray(np.rint(pixels).astype(np.uint8)).save(buffer, "JPEG", quality=QUALITY, subsampling=0)
        return buffer.getvalue()

    def _cover(self, cover: NDArray[np.float32], edge: NDArray[np.bool_], first: int) -> None:
        y, x = np.nonzero(edge)
        rows = ((y + first + 0.5) * self._scale).astype(np.int64)
        columns = ((x + 0.5) * self._scale).astype(np.int64)
        counted = np.bincount(rows * cover.shape[1] + columns, minlength=0)
        cover.ravel()[: len(counted)] += counted.astype(np.float32)


def _edges(instances: NDArray[np.int32]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Pixels at the inner border of nuclei, and background pixels that touch a nucleus."""
    at_border: NDArray[np.bool_] = np.zeros(instances.shape, np.bool_)
    for axis in (0, 1):
        differs = np.diff(instances, axis=axis) != 0
        for before in (0, 1):
            pad = [(0, 0), (0, 0)]
            pad[axis] = (before, 1 - before)
            at_border |= np.pad(differs, pad)
    return at_border & (instances > 0), at_border & (instances == 0)


def _reduced(slide: Slide, shape: tuple[int, int]) -> NDArray[np.uint8]:
    """The whole image reduced to the size of the picture, read in blocks."""
    if shape == slide.size:
        return slide.read(0, 0, *shape)
    level = min(slide.levels, key=lambda size: (size[0] < shape[0] - 1, size[0] * size[1]))
    side = max(int((SOURCE_PX * shape[0] * shape[1] / (level[0] * level[1])) ** 0.5), 1)
    picture = np.empty((*shape, 3), np.uint8)
    for y in range(0, shape[0], side):
        for x in range(0, shape[1], side):
            h, w = min(side, shape[0] - y), min(side, shape[1] - x)
            picture[y : y + h, x : x + w] = slide.read(y, x, h, w, grid=shape)
    return picture
