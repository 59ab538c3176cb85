"""Find the nuclei in the maps of an image: separate them in blocks, join blocks, outline and measure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import ceil, floor, sqrt

import numpy as np
from numpy.typing import NDArray

from nucseg.data.resampling import resampled
from nucseg.data.slides import Mpp
from nucseg.nuclei.instances import InstanceRule, separate
from nucseg.nuclei.measurements import Measurements, measure
from nucseg.nuclei.polygons import Ring, outline
from nucseg.nuclei.stitching import BlockWindow, NucleusMask, RowBand, WindowNuclei, block_windows, stitch
from nucseg.tiling import Maps
from nucseg_pipeline.loading.prefetch import prefetch
from nucseg_pipeline.predict.probability_maps import TiledSlide

MARGIN = 64
"""How far a window extends beyond its block, in pixels of the network's grid; wider than any nucleus."""

BLOCK_PX = (768, 1024)
"""Minimum height and width of a block in pixels of the image."""


@dataclass(frozen=True, eq=False)
class Nucleus:
    """A nucleus, in pixels of its image."""

    measurements: Measurements
    rings: list[Ring]
    """Its outline: the outer ring, then the holes; see `nucseg.nuclei.polygons`."""


class _RowBuffer:
    """The rows of the maps that are still needed."""

    def __init__(self) -> None:
        self._parts: list[Maps] = []
        self._first = self.bottom = 0

    def add(self, rows: Maps) -> None:
        self._parts.append(rows)
        self.bottom += rows.shape[1]

    def drop(self, above: int) -> None:
        """Free the rows above a row."""
        while self._parts and self._first + self._parts[0].shape[1] <= above:
            self._first += self._parts.pop(0).shape[1]

    def cut(self, rows: slice, columns: slice) -> Maps:
        """The maps (C, h, w) of some rows and columns."""
        if len(self._parts) > 1:
            self._parts = [np.concatenate(self._parts, axis=1)]
        return self._parts[0][:, rows.start - self._first : rows.stop - self._first, columns]


def bands(
    tiled: TiledSlide,
    rows: Iterable[Maps],
    rule: InstanceRule,
    shift: tuple[int, int] = (0, 0),
    mpp: Mpp | None = None,
) -> Iterator[RowBand[Nucleus]]:
    """Find the nuclei of an image from top to bottom while its maps are predicted; runs in a thread of its own.

    Args:
        tiled: the image.
        rows: its maps in consecutive bands of rows, from `map_rows`.
        rule: how nuclei are separated, for the network's grid.
        shift: moves the borders of the blocks, which must not change the result.
        mpp: microns per pixel of the image, down and across.
    """
    network_px = tiled.network_px
    across = sqrt(network_px[0] * network_px[1])
    scaled = rule.scaled(across)
    margin = ceil(MARGIN * max(network_px))
    block = max(BLOCK_PX[0], 2 * margin), max(BLOCK_PX[1], 2 * margin)
    buffer = _RowBuffer()

    def find(down: BlockWindow, right: BlockWindow) -> WindowNuclei[Nucleus] | None:
        return _window(tiled, buffer, scaled, down, right, mpp)

    stitched = stitch(tiled.slide.size, find, block=block, margin=margin, min_area_px=scaled.min_area_px, shift=shift)
    height = tiled.grid.extent[0]
    windows = block_windows(tiled.slide.size[0], block[0], margin, shift[0])
    pending = [_needed(window, network_px[0], height) for window in windows]

    def complete_bands(new: Maps) -> list[RowBand[Nucleus]]:
        buffer.add(new)
        complete = []
        while pending and pending[0].stop <= buffer.bottom:
            complete.append(next(stitched))
            pending.pop(0)
            buffer.drop(pending[0].start if pending else height)
        return complete

    for complete in prefetch(complete_bands, rows):
        yield from complete


def native_maps(tiled: TiledSlide, maps: Maps) -> Maps:
    """Interpolate the maps (C, h, w) of a whole image to its pixels, (C, H, W), as `bands` does window by window."""
    down, right = (BlockWindow(0, extent, 0, extent) for extent in tiled.slide.size)
    return _fine(_fine(maps, down, 0, tiled.network_px[0], 1), right, 0, tiled.network_px[1], 2)


def _needed(window: BlockWindow, network_px: float, extent: int) -> slice:
    """The rows or columns of the network's grid needed to interpolate a window along an axis."""
    first, stop = floor(window.window_start / network_px) - 1, ceil(window.window_stop / network_px) + 2
    return slice(max(first, 0), min(stop, extent))


def _window(
    tiled: TiledSlide, buffer: _RowBuffer, rule: InstanceRule, down: BlockWindow, right: BlockWindow, mpp: Mpp | None
) -> WindowNuclei[Nucleus] | None:
    rows, columns = (
        _needed(span, tiled.network_px[axis], tiled.grid.extent[axis]) for axis, span in enumerate((down, right))
    )
    coarse = buffer.cut(rows, columns)
    if not (coarse[0] >= rule.threshold).any():  # interpolation cannot exceed the threshold
        return None
    maps = _fine(_fine(coarse, down, rows.start, tiled.network_px[0], 1), right, columns.start, tiled.network_px[1], 2)
    probability: NDArray[np.float32] = maps[0]
    instances = separate(probability, rule, maps[1] if len(maps) > 1 else None)
    if not instances.any():
        return None
    image = tiled.slide.read(down.window_start, right.window_start, down.window_px, right.window_px)

    def describe(piece: NucleusMask) -> Nucleus:
        box = tuple(
            slice(side.start - span.window_start, side.stop - span.window_start)
            for side, span in zip(piece.box, (down, right), strict=True)
        )
        measured = measure(piece, image[box], probability[box], mpp)
        return Nucleus(measured, outline(piece.mask, x=piece.x, y=piece.y))

    return WindowNuclei(instances, describe)


def _fine(maps: Maps, span: BlockWindow, first: int, network_px: float, axis: int) -> Maps:
    """Interpolate maps to the pixels of the image along one axis."""
    step = 1 / network_px
    return np.asarray(resampled(maps, span.window_start * step - first, step, span.window_px, axis), np.float32)
