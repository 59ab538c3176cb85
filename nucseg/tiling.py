"""An image larger than what a network was trained on, as overlapping tiles whose answers are blended.

Two grids lie over the image. On the *reading grid* it has the resolution of the training images, and a tile is as large
as one of them was; there the tiles are cut out. The *network's grid* is what is left after preparation: a tile has
`side_px` pixels there, and there the answers are added up.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil

import numpy as np
from numpy.typing import NDArray

from nucseg.errors import ConfigError

Maps = NDArray[np.float32]
"""(C, H, W): probability of nucleus, and the distance where a network says it."""


@dataclass(frozen=True)
class Tile:
    """One tile: where it is cut out, and where its answer goes."""

    y: int
    x: int
    """First row and column on the reading grid."""
    h: int
    w: int
    """Rows and columns of the reading grid that the image has there: fewer than a tile's only where it is smaller."""
    to_y: int
    to_x: int
    """First row and column on the network's grid."""
    to_h: int
    to_w: int
    """Rows and columns of the network's grid that the image covers; the rest of the tile is padding."""


@dataclass(frozen=True, kw_only=True)
class TileGrid:
    """Where the tiles of an image lie."""

    size: tuple[int, int]
    """(H, W) of the image on the reading grid."""
    tile_px: int
    """Side of a tile on the reading grid."""
    side_px: int
    """Side of a tile on the network's grid."""
    overlap: float = 0.25
    """Share of its side that a tile has in common with each neighbour, at least."""
    shift: tuple[int, int] = (0, 0)
    """How many pixels of the network's grid further up and left the grid begins: results must not depend on it."""

    def __post_init__(self) -> None:
        if not 0 <= self.overlap <= 0.75:
            raise ConfigError(f"overlap is a share of a tile's side from 0 to 0.75, got {self.overlap}.")
        if min(self.size) < 1 or min(self.tile_px, self.side_px) < 1:
            raise ConfigError(f"An image and its tiles have at least one pixel, got {self}.")

    @property
    def extent(self) -> tuple[int, int]:
        """(H, W) of the image on the network's grid."""
        return self._extent(0), self._extent(1)

    def network_px(self, axis: int) -> float:
        """Pixels of the reading grid to one of the network's grid, along an axis."""
        if self.size[axis] <= self.tile_px:
            return self.size[axis] / self._extent(axis)
        return self.tile_px / self.side_px

    @property
    def n_tiles(self) -> int:
        """How many tiles there are."""
        return len(self.starts(0)) * len(self.starts(1))

    def starts(self, axis: int) -> list[int]:
        """First pixels of the tiles on the network's grid along an axis; the last tile ends where the image does."""
        last = max(self._extent(axis) - self.side_px, 0)
        step = max(round(self.side_px * (1 - self.overlap)), 1)
        begins = range(-(self.shift[axis] % step), last, step)
        return sorted({max(begin, 0) for begin in begins} | {last})

    def row(self, number: int) -> Iterator[Tile]:
        """The tiles of one row of tiles, from left to right."""
        y = self.starts(0)[number]
        for x in self.starts(1):
            (from_y, h, to_h), (from_x, w, to_w) = self._cut(0, y), self._cut(1, x)
            yield Tile(from_y, from_x, h, w, y, x, to_h, to_w)

    def _extent(self, axis: int) -> int:
        scaled = self.size[axis] * self.side_px / self.tile_px
        # an image that is no larger than a tile becomes what preparation would make of it
        return max(int(scaled + 0.5) if self.size[axis] <= self.tile_px else ceil(scaled - 1e-9), 1)

    def _cut(self, axis: int, to: int) -> tuple[int, int, int]:
        size, extent = self.size[axis], self._extent(axis)
        if size <= self.tile_px:
            return 0, size, extent
        return min(round(to * self.tile_px / self.side_px), size - self.tile_px), self.tile_px, self.side_px


def blend_weights(side_px: int) -> NDArray[np.float32]:
    """How much each pixel of a tile counts, (side, side): a Hann window, largest in the middle and never zero."""
    along = np.sin(np.pi * (np.arange(side_px) + 0.5) / side_px) ** 2
    weights: NDArray[np.float32] = np.outer(along, along).astype(np.float32)
    return weights


class Blend:
    """The weighted mean of overlapping tiles, of which only the rows that may still change are in memory."""

    def __init__(self, n_maps: int, side_px: int, width: int) -> None:
        """Nothing is there yet; the first row is row 0 of the network's grid."""
        self._sums = np.zeros((n_maps, side_px, width), np.float32)
        self._weights = np.zeros((side_px, width), np.float32)
        self._of_tile = blend_weights(side_px)

    def add(self, x: int, maps: Maps) -> None:
        """Add a tile (C, h, w) whose first row is the first of those in memory, without its padding."""
        h, w = maps.shape[1:]
        weights, columns = self._of_tile[:h, :w], slice(x, x + w)
        self._sums[:, :h, columns] += weights * maps
        self._weights[:h, columns] += weights

    def finished(self, n_rows: int) -> Maps:
        """Take the first rows away, (C, n_rows, W), and begin with the row after them; 0 where no tile was."""
        sums, weights = self._sums[:, :n_rows], self._weights[:n_rows]
        mean = np.divide(sums, weights, out=np.zeros_like(sums), where=weights > 0)
        self._sums = _moved_up(self._sums, n_rows)
        self._weights = _moved_up(self._weights, n_rows)
        return mean


def _moved_up(rows: NDArray[np.float32], n_rows: int) -> NDArray[np.float32]:
    """The rows (..., H, W) without the first n_rows, zeros at the end."""
    rows[..., : rows.shape[-2] - n_rows, :] = rows[..., n_rows:, :].copy()
    rows[..., rows.shape[-2] - n_rows :, :] = 0
    return rows
