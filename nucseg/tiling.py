"""Split an image larger than the training images into overlapping tiles, and blend the predictions for them.

Two grids cover the image. On the *reading grid*, the image has the resolution of the training images and a tile the
size of one; tiles are cut out there. On the *network's grid*, the grid of prepared images, a tile has `side_px` pixels;
predictions are blended there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil

import numpy as np
from numpy.typing import NDArray

from nucseg.errors import ConfigError

Maps = NDArray[np.float32]
"""(C, H, W): nucleus probability, and distance if the network predicts it."""


@dataclass(frozen=True)
class Tile:
    """A tile: where it is cut out, and where its prediction belongs."""

    y: int
    x: int
    """First row and column on the reading grid."""
    h: int
    w: int
    """Rows and columns of the image on the reading grid: fewer than a tile's only if the image is smaller."""
    to_y: int
    to_x: int
    """First row and column on the network's grid."""
    to_h: int
    to_w: int
    """Rows and columns of the network's grid that the image covers; the rest of the tile is padding."""


@dataclass(frozen=True, kw_only=True)
class TileGrid:
    """The layout of the tiles of an image."""

    size: tuple[int, int]
    """(H, W) of the image on the reading grid."""
    tile_px: int
    """Side of a tile on the reading grid."""
    side_px: int
    """Side of a tile on the network's grid."""
    overlap: float = 0.25
    """Minimum share of its side that a tile overlaps with each neighbour."""
    shift: tuple[int, int] = (0, 0)
    """Pixels of the network's grid by which tiles are moved up and left; results must not depend on it."""

    def __post_init__(self) -> None:
        if not 0 <= self.overlap <= 0.75:
            raise ConfigError(
                f"overlap must be a share of a tile's side from 0 to 0.75, such as 0.5, got {self.overlap}."
            )
        if min(self.size) < 1 or min(self.tile_px, self.side_px) < 1:
            raise ConfigError(f"An image and its tiles must have at least one pixel, got {self}.")

    @property
    def extent(self) -> tuple[int, int]:
        """(H, W) of the image on the network's grid."""
        return self._extent(0), self._extent(1)

    def network_px(self, axis: int) -> float:
        """Pixels of the reading grid per pixel of the network's grid, along an axis."""
        if self.size[axis] <= self.tile_px:
            return self.size[axis] / self._extent(axis)
        return self.tile_px / self.side_px

    @property
    def n_tiles(self) -> int:
        """Number of tiles."""
        return len(self.starts(0)) * len(self.starts(1))

    def starts(self, axis: int) -> list[int]:
        """First pixels of the tiles along an axis of the network's grid; the last tile ends where the image does."""
        last = max(self._extent(axis) - self.side_px, 0)
        step = max(round(self.side_px * (1 - self.overlap)), 1)
        regular = range(-(self.shift[axis] % step), last, step)
        return sorted({max(start, 0) for start in regular} | {last})

    def row(self, number: int) -> Iterator[Tile]:
        """Yield a row of tiles from left to right."""
        y = self.starts(0)[number]
        for x in self.starts(1):
            (from_y, h, to_h), (from_x, w, to_w) = self._cut(0, y), self._cut(1, x)
            yield Tile(from_y, from_x, h, w, y, x, to_h, to_w)

    def _extent(self, axis: int) -> int:
        scaled = self.size[axis] * self.side_px / self.tile_px
        # an image no larger than a tile is resized as by preparation
        return max(int(scaled + 0.5) if self.size[axis] <= self.tile_px else ceil(scaled - 1e-9), 1)

    def _cut(self, axis: int, to: int) -> tuple[int, int, int]:
        size, extent = self.size[axis], self._extent(axis)
        if size <= self.tile_px:
            return 0, size, extent
        return min(round(to * self.tile_px / self.side_px), size - self.tile_px), self.tile_px, self.side_px


def blend_weights(side_px: int) -> NDArray[np.float32]:
    """Weight of each pixel of a tile, (side, side): a Hann window, largest in the middle and never zero."""
    along = np.sin(np.pi * (np.arange(side_px) + 0.5) / side_px) ** 2
    weights: NDArray[np.float32] = np.outer(along, along).astype(np.float32)
    return weights


class Blend:
    """The weighted mean of overlapping tiles; only the rows that may still change are in memory."""

    def __init__(self, n_maps: int, side_px: int, width: int) -> None:
        """Start empty, at row 0 of the network's grid."""
        self._sums = np.zeros((n_maps, side_px, width), np.float32)
        self._weights = np.zeros((side_px, width), np.float32)
        self._of_tile = blend_weights(side_px)

    def add(self, x: int, maps: Maps) -> None:
        """Add a tile (C, h, w), without its padding, whose first row is the first in memory."""
        h, w = maps.shape[1:]
        weights, columns = self._of_tile[:h, :w], slice(x, x + w)
        self._sums[:, :h, columns] += weights * maps
        self._weights[:h, columns] += weights

    @property
    def state(self) -> NDArray[np.float32]:
        """(C + 1, side, W): the sums and the weights in memory, from which `restore` continues exactly."""
        return np.concatenate([self._sums, self._weights[None]])

    def restore(self, state: NDArray[np.float32]) -> None:
        """Continue from the `state` of another blend of the same shape."""
        self._sums[:], self._weights[:] = state[:-1], state[-1]

    def pop_rows(self, n_rows: int) -> Maps:
        """Remove and return the first rows, (C, n_rows, W); 0 where there was no tile."""
        sums, weights = self._sums[:, :n_rows], self._weights[:n_rows]
        mean = np.divide(sums, weights, out=np.zeros_like(sums), where=weights > 0)
        self._sums = _moved_up(self._sums, n_rows)
        self._weights = _moved_up(self._weights, n_rows)
        return mean


def _moved_up(rows: NDArray[np.float32], n_rows: int) -> NDArray[np.float32]:
    """Shift rows (..., H, W) up in place by n_rows, with zeros at the end."""
    rows[..., : rows.shape[-2] - n_rows, :] = rows[..., n_rows:, :].copy()
    rows[..., rows.shape[-2] - n_rows :, :] = 0
    return rows
