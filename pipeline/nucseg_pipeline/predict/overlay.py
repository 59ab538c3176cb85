"""A picture of a whole image with the outlines of its nuclei, drawn while they are found."""

from __future__ import annotations

from io import BytesIO
from math import ceil

import numpy as np
from numpy.typing import NDArray

from nucseg.data.slides import Slide

LONGEST_PX = 2048
"""Longest side of the picture."""

QUALITY = 92
"""Of the JPEG."""

SOURCE_PX = 1 << 22
"""Pixels of the image that are read at once to be reduced."""

WHITE, DARK = np.array([255, 255, 255], np.float32), np.array([74, 42, 110], np.float32)
"""A nucleus is outlined in white, as in the figures, and once more in a dark violet around it, for light tissue."""


class Overlay:
    """How much of each pixel of the picture the outlines cover."""

    def __init__(self, size: tuple[int, int]) -> None:
        """Nothing is outlined yet in an image of (H, W)."""
        self._scale = min(1.0, LONGEST_PX / max(size))
        self._size = size
        self._shape = tuple(max(ceil(extent * self._scale), 1) for extent in size)
        self._inner, self._outer = np.zeros((2, *self._shape), np.float32)
        self._first = 0
        self._above: NDArray[np.int32] = np.zeros((0, size[1]), np.int32)

    def add(self, instances: NDArray[np.int32]) -> None:
        """Outline the nuclei in the next rows (h, W) of the instance map."""
        rows = np.concatenate([self._above, instances])
        first = self._first - len(self._above)
        inner, outer = _edges(rows)
        # what the last row is beside is seen with the next rows
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
        """The image with the outlines, as a JPEG."""
        from PIL import Image

        shown = _reduced(slide, (self._shape[0], self._shape[1])).astype(np.float32)
        for colour, cover in ((DARK, self._outer), (WHITE, self._inner)):
            # a line that crosses a pixel of the picture covers one pixel of the image in every row or column of it
            alpha = (cover * self._scale).clip(0, 1)[..., None]
            shown += alpha * (colour - shown)
        buffer = BytesIO()
        Image.fromarray(np.rint(shown).astype(np.uint8)).save(buffer, "JPEG", quality=QUALITY, subsampling=0)
        return buffer.getvalue()

    def _cover(self, cover: NDArray[np.float32], edge: NDArray[np.bool_], first: int) -> None:
        y, x = np.nonzero(edge)
        rows = ((y + first + 0.5) * self._scale).astype(np.int64)
        columns = ((x + 0.5) * self._scale).astype(np.int64)
        counted = np.bincount(rows * cover.shape[1] + columns, minlength=0)
        cover.ravel()[: len(counted)] += counted.astype(np.float32)


def _edges(instances: NDArray[np.int32]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Pixels of nuclei beside something else, and pixels of the background beside a nucleus."""
    beside: NDArray[np.bool_] = np.zeros(instances.shape, np.bool_)
    for axis in (0, 1):
        differs = np.diff(instances, axis=axis) != 0
        for before in (0, 1):
            pad = [(0, 0), (0, 0)]
            pad[axis] = (before, 1 - before)
            beside |= np.pad(differs, pad)
    return beside & (instances > 0), beside & (instances == 0)


def _reduced(slide: Slide, shape: tuple[int, int]) -> NDArray[np.uint8]:
    """The whole image at the size of the picture, read block by block."""
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
