"""The maps of a whole image, row by row: tiles are read ahead, passed over where there is no tissue, and blended."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import groupby, islice

import numpy as np
from numpy.typing import NDArray

from nucseg.data.slides import Slide
from nucseg.data.stain import Normaliser, fit_normaliser, tissue_share
from nucseg.tiling import Blend, Maps, Tile, TileGrid
from nucseg_pipeline.loading.prefetch import prefetch
from nucseg_pipeline.predict.tile_model import Engine

LEAST_TISSUE = 0.005
"""A tile of which less is tissue is passed over: about what one nucleus covers."""

SAMPLE_TILES, SAMPLE_CANDIDATES = 32, 256
"""From how many tiles with tissue a stain normalisation is estimated, and how many are looked at for them."""

Image = NDArray[np.uint8]


@dataclass
class Counts:
    """What became of the tiles."""

    done: int = 0
    skipped: int = 0
    """Without tissue."""
    stain_unchanged: str = ""
    """Why the stain was not normalised, where it should have been."""


@dataclass(frozen=True, eq=False)
class Scene:
    """An image, and the tiles that it is predicted by."""

    slide: Slide
    grid: TileGrid
    counts: Counts = field(default_factory=Counts)

    def region(self, tile: Tile) -> Image:
        """The pixels of a tile on the reading grid."""
        return self.slide.read(tile.y, tile.x, tile.h, tile.w, grid=self.grid.size)

    @property
    def network_px(self) -> tuple[float, float]:
        """Pixels of the image to one of the network's grid, down and across."""
        down, across = (self.grid.network_px(axis) * self.slide.size[axis] / self.grid.size[axis] for axis in (0, 1))
        return down, across


def map_rows(scene: Scene, engine: Engine, *, everything: bool, progress: Callable[[int], None]) -> Iterator[Maps]:
    """The maps (C, h, W) of the network's grid from above to below: as many rows at a time as are finished."""
    grid, counts = scene.grid, scene.counts
    fitted = _normaliser(scene, engine)
    counts.stain_unchanged = fitted.unchanged
    starts, (height, width) = grid.starts(0), grid.extent
    blend = Blend(engine.n_maps, grid.side_px, width)

    def read(numbered: tuple[int, Tile]) -> tuple[int, Tile, Image | None]:
        number, tile = numbered
        region = scene.region(tile)
        if not everything and tissue_share(region) < LEAST_TISSUE:
            return number, tile, None
        return number, tile, fitted(region)

    tiles = ((number, tile) for number in range(len(starts)) for tile in grid.row(number))
    reading = prefetch(read, tiles, depth=2 * engine.batch_size)
    for number, row in groupby(reading, key=lambda one: one[0]):
        while batch := list(islice(row, engine.batch_size)):
            shown = [(tile, region) for _, tile, region in batch if region is not None]
            if shown:
                of, regions = zip(*shown, strict=True)
                for tile, maps in zip(of, engine.maps(of, regions, grid.tile_px), strict=True):
                    blend.add(tile.to_x, maps)
            counts.done += len(batch)
            counts.skipped += len(batch) - len(shown)
            progress(counts.done)
        bottom = [*starts[1:], height][number]
        yield blend.pop_rows(bottom - starts[number])


def _normaliser(scene: Scene, engine: Engine) -> Normaliser:
    """One normalisation for the whole image, estimated on tiles with tissue that are spread over it."""
    if engine.stain == "none":
        return fit_normaliser(np.zeros((1, 1, 3), np.uint8), "none")
    tiles = [tile for number in range(len(scene.grid.starts(0))) for tile in scene.grid.row(number)]
    spread = np.linspace(0, len(tiles) - 1, min(len(tiles), SAMPLE_CANDIDATES)).astype(int)
    order = spread[np.argsort([int(f"{i:08b}"[::-1], 2) for i in range(len(spread))], kind="stable")]
    regions = (scene.region(tiles[position]) for position in order.tolist())
    sample = list(islice((one for one in regions if tissue_share(one) >= LEAST_TISSUE), SAMPLE_TILES))
    return fit_normaliser(np.concatenate(sample or [scene.region(tiles[0])]), engine.stain)
