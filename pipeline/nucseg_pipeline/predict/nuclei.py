"""From the maps of an image to its nuclei: separated in blocks, joined across them, outlined and measured."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import ceil, floor, sqrt

import numpy as np
from numpy.typing import NDArray

from nucseg.data.resampling import resampled
from nucseg.nuclei.instances import InstanceRule, separate
from nucseg.nuclei.measurements import Measurements, measure
from nucseg.nuclei.polygons import Ring, outline
from nucseg.nuclei.stitching import BlockWindow, NucleusMask, RowBand, WindowNuclei, block_windows, stitch
from nucseg.tiling import Maps
from nucseg_pipeline.loading.prefetch import prefetch
from nucseg_pipeline.predict.probability_maps import Scene

MARGIN = 64
"""How far a window reaches beyond its block, in pixels of the network's grid: several nuclei."""

BLOCK_PX = (768, 1024)
"""Least height and width of a block in pixels of the image."""


@dataclass(frozen=True, eq=False)
class Nucleus:
    """One nucleus, in pixels of its image."""

    measurements: Measurements
    rings: list[Ring]
    """Its outline: the outer ring, then those of holes, see `nucseg.nuclei.polygons`."""


class _Held:
    """Rows of the network's grid that are still needed."""

    def __init__(self) -> None:
        self._parts: list[Maps] = []
        self._first = self.bottom = 0

    def add(self, rows: Maps) -> None:
        self._parts.append(rows)
        self.bottom += rows.shape[1]

    def drop(self, above: int) -> None:
        """Let go of the rows above one."""
        while self._parts and self._first + self._parts[0].shape[1] <= above:
            self._first += self._parts.pop(0).shape[1]

    def cut(self, rows: slice, columns: slice) -> Maps:
        """(C, h, w) of some rows and columns."""
        if len(self._parts) > 1:
            self._parts = [np.concatenate(self._parts, axis=1)]
        return self._parts[0][:, rows.start - self._first : rows.stop - self._first, columns]


def bands(
    scene: Scene, rows: Iterable[Maps], rule: InstanceRule, shift: tuple[int, int] = (0, 0)
) -> Iterator[RowBand[Nucleus]]:
    """Find the nuclei of an image while its maps come in, from above to below; in another thread than the network.

    Args:
        scene: the image.
        rows: its maps, row by row, see `map_rows`.
        rule: how a map becomes nuclei, for the network's grid.
        shift: of the borders of the blocks, which must change nothing.
    """
    network_px = scene.network_px
    across = sqrt(network_px[0] * network_px[1])
    scaled = rule.scaled(across)
    margin = ceil(MARGIN * across)
    block = max(BLOCK_PX[0], 2 * margin), max(BLOCK_PX[1], 2 * margin)
    held = _Held()

    def look(down: BlockWindow, right: BlockWindow) -> WindowNuclei[Nucleus] | None:
        return _window(scene, held, scaled, down, right)

    assembled = stitch(scene.slide.size, look, block=block, margin=margin, min_area_px=scaled.min_area_px, shift=shift)
    height = scene.grid.extent[0]
    waiting = [
        _needed(one, network_px[0], height) for one in block_windows(scene.slide.size[0], block[0], margin, shift[0])
    ]

    def found(new: Maps) -> list[RowBand[Nucleus]]:
        held.add(new)
        made = []
        while waiting and waiting[0].stop <= held.bottom:
            made.append(next(assembled))
            waiting.pop(0)
            held.drop(waiting[0].start if waiting else height)
        return made

    for several in prefetch(found, rows):
        yield from several


def _needed(span: BlockWindow, network_px: float, extent: int) -> slice:
    """What of the network's grid is needed to interpolate a window along an axis."""
    return slice(
        max(floor(span.window_start / network_px) - 1, 0), min(ceil(span.window_stop / network_px) + 2, extent)
    )


def _window(
    scene: Scene, held: _Held, rule: InstanceRule, down: BlockWindow, right: BlockWindow
) -> WindowNuclei[Nucleus] | None:
    rows, columns = (
        _needed(span, scene.network_px[axis], scene.grid.extent[axis]) for axis, span in enumerate((down, right))
    )
    coarse = held.cut(rows, columns)
    if not (coarse[0] >= rule.threshold).any():  # interpolation gives no larger values
        return None
    maps = _fine(_fine(coarse, down, rows.start, scene.network_px[0], 1), right, columns.start, scene.network_px[1], 2)
    probability: NDArray[np.float32] = maps[0]
    instances = separate(probability, rule, maps[1] if len(maps) > 1 else None)
    if not instances.any():
        return None
    image = scene.slide.read(down.window_start, right.window_start, down.window_px, right.window_px)

    def describe(piece: NucleusMask) -> Nucleus:
        box = tuple(
            slice(side.start - span.window_start, side.stop - span.window_start)
            for side, span in zip(piece.box, (down, right), strict=True)
        )
        measured = measure(piece, image[box], probability[box])
        return Nucleus(measured, outline(piece.mask, x=piece.x, y=piece.y))

    return WindowNuclei(instances, describe)


def _fine(maps: Maps, span: BlockWindow, first: int, network_px: float, axis: int) -> Maps:
    """Maps on the pixels of the image, along one axis."""
    step = 1 / network_px
    return np.asarray(resampled(maps, span.window_start * step - first, step, span.window_px, axis), np.float32)
