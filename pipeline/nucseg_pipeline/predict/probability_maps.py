"""Predict the maps of an image row by row: prefetch tiles, skip those without tissue, blend the others."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import asdict, dataclass, field
from itertools import groupby, islice
from operator import itemgetter

import numpy as np
from numpy.typing import NDArray

from nucseg.data.slides import Slide
from nucseg.data.stain import Normaliser, fit_normaliser, tissue_share
from nucseg.tiling import Blend, Maps, Tile, TileGrid
from nucseg_pipeline.loading.prefetch import prefetch
from nucseg_pipeline.predict.kept_rows import Checkpoint, KeptRows
from nucseg_pipeline.predict.tile_model import TileModel

MIN_TISSUE = 0.005
"""Tiles with a smaller share of tissue are skipped; about the area of one nucleus."""

SAMPLE_TILES, SAMPLE_CANDIDATES = 32, 256
"""Tiles with tissue from which a stain normalisation is estimated, and tiles searched for them."""

Image = NDArray[np.uint8]


@dataclass
class TileCounts:
    """What happened to the tiles of an image."""

    done: int = 0
    """Processed tiles, including skipped ones; those of kept rows count too."""
    skipped: int = 0
    """Tiles without tissue."""
    stain_unchanged: str = ""
    """Why the stain was not normalised although the network expects it; else empty."""


@dataclass(frozen=True, eq=False)
class TiledSlide:
    """An image and the grid of tiles it is cut into."""

    slide: Slide
    grid: TileGrid
    counts: TileCounts = field(default_factory=TileCounts)

    def region(self, tile: Tile) -> Image:
        """Read the pixels of a tile on the reading grid."""
        return self.slide.read(tile.y, tile.x, tile.h, tile.w, grid=self.grid.size)

    @property
    def network_px(self) -> tuple[float, float]:
        """Pixels of the image per pixel of the network's grid, down and across."""
        down, across = (self.grid.network_px(axis) * self.slide.size[axis] / self.grid.size[axis] for axis in (0, 1))
        return down, across


def map_rows(
    tiled: TiledSlide,
    tile_model: TileModel,
    *,
    everything: bool,
    progress: Callable[[int], None],
    kept: KeptRows | None = None,
) -> Iterator[Maps]:
    """Yield maps (C, h, W) on the network's grid from top to bottom, as soon as rows are complete.

    Args:
        tiled: the image.
        tile_model: predicts tiles.
        everything: predict tiles without tissue too.
        progress: called with the number of tiles done.
        kept: the rows of a prediction that was stopped, which come first and are not predicted again; finished rows are
            added to them. The last row is not: nothing is left to predict after it.
    """
    grid, counts = tiled.grid, tiled.counts
    normaliser = _normaliser(tiled, tile_model)
    counts.stain_unchanged = normaliser.unchanged
    starts, (height, width) = grid.starts(0), grid.extent
    blend = Blend(tile_model.n_maps, grid.side_px, width)
    first_row = yield from _kept_maps(kept, blend, counts)

    def read(tile_in_row: tuple[int, Tile]) -> tuple[int, Tile, Image | None]:
        row, tile = tile_in_row
        region = tiled.region(tile)
        if not everything and tissue_share(region) < MIN_TISSUE:
            return row, tile, None
        return row, tile, normaliser(region)

    tiles = ((row, tile) for row in range(first_row, len(starts)) for tile in grid.row(row))
    prefetched = prefetch(read, tiles, depth=2 * tile_model.batch_size)
    for row, tiles_of_row in groupby(prefetched, key=itemgetter(0)):
        while batch := list(islice(tiles_of_row, tile_model.batch_size)):
            with_tissue = [(tile, region) for _, tile, region in batch if region is not None]
            if with_tissue:
                batch_tiles, regions = zip(*with_tissue, strict=True)
                for tile, maps in zip(batch_tiles, tile_model.maps(batch_tiles, regions, grid.tile_px), strict=True):
                    blend.add(tile.to_x, maps)
            counts.done += len(batch)
            counts.skipped += len(batch) - len(with_tissue)
            progress(counts.done)
        bottom = [*starts[1:], height][row]
        maps_of_row = blend.pop_rows(bottom - starts[row])
        if kept is not None and row < len(starts) - 1:
            kept.add(maps_of_row, Checkpoint(blend.state, asdict(counts)))
        yield maps_of_row


def _kept_maps(kept: KeptRows | None, blend: Blend, counts: TileCounts) -> Generator[Maps, None, int]:
    """Yield the maps of the kept rows, restore the state after them, and return their number."""
    checkpoint = kept.checkpoint() if kept is not None else None
    if kept is None or checkpoint is None:
        return 0
    n_rows = kept.n_rows  # grows while the rows after them are predicted
    yield from kept.rows()
    blend.restore(checkpoint.blended)
    vars(counts).update(checkpoint.counts)
    return n_rows


def _normaliser(tiled: TiledSlide, tile_model: TileModel) -> Normaliser:
    """A normalisation for the whole image, estimated on tiles with tissue spread over it."""
    if tile_model.stain == "none":
        return fit_normaliser(np.zeros((1, 1, 3), np.uint8), "none")
    tiles = [tile for number in range(len(tiled.grid.starts(0))) for tile in tiled.grid.row(number)]
    spread = np.linspace(0, len(tiles) - 1, min(len(tiles), SAMPLE_CANDIDATES)).astype(int)
    order = spread[np.argsort([int(f"{i:08b}"[::-1], 2) for i in range(len(spread))], kind="stable")]
    regions = (tiled.region(tiles[position]) for position in order.tolist())
    sample = list(islice((region for region in regions if tissue_share(region) >= MIN_TISSUE), SAMPLE_TILES))
    return fit_normaliser(np.concatenate(sample or [tiled.region(tiles[0])]), tile_model.stain)
