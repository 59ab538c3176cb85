"""Predict the maps of an image row by row: prefetch tiles, skip those without tissue, blend the others.

What is black, unscanned or pen (`nucseg.data.tissue.artefacts`) is shown to the network as glass, and the probability
of a nucleus is 0 there.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import groupby, islice
from operator import attrgetter

import numpy as np
from numpy.typing import NDArray

from nucseg.data.prepare import under_centres
from nucseg.data.slides import Slide
from nucseg.data.stain import Normaliser, fit_normaliser
from nucseg.data.tissue import LIGHT, Mask, Tissue, artefacts, is_dense
from nucseg.tiling import Blend, Maps, Tile, TileGrid
from nucseg_pipeline.loading.prefetch import prefetch
from nucseg_pipeline.predict.kept_rows import Checkpoint, KeptRows
from nucseg_pipeline.predict.tile_model import TileModel

MIN_TISSUE = 0.005
"""Tiles with a smaller share of tissue are skipped; about the area of one nucleus."""

TISSUE_RULE = (
    f"a tile is skipped if less than {MIN_TISSUE:.1%} of it is denser than glass and neither black, unscanned nor pen; "
    "no nucleus lies in these"
)
"""How tissue is found, as summary.json says it."""

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
    tissue: Tissue = field(default_factory=Tissue)
    """Sums over the pixels of the reading grid."""
    stain_unchanged: str = ""
    """Why the stain was not normalised although the network expects it; else empty."""


@dataclass(frozen=True, eq=False)
class TiledSlide:
    """An image and the grid of tiles it is cut into."""

    slide: Slide
    grid: TileGrid
    mpp: float | None
    """Microns per pixel of the reading grid, the mean of both sides."""
    counts: TileCounts = field(default_factory=TileCounts)

    def region(self, tile: Tile) -> Image:
        """Read the pixels of a tile on the reading grid."""
        return self.slide.read(tile.y, tile.x, tile.h, tile.w, grid=self.grid.size)

    @property
    def network_px(self) -> tuple[float, float]:
        """Pixels of the image per pixel of the network's grid, down and across."""
        down, across = (self.grid.network_px(axis) * self.slide.size[axis] / self.grid.size[axis] for axis in (0, 1))
        return down, across


@dataclass(frozen=True, eq=False)
class _ReadTile:
    """A tile that was read."""

    row: int
    tile: Tile
    tissue: Tissue
    """Of the part of the tile that no later tile covers."""
    region: Image | None
    """What the network is shown, (h, w, 3); None if there is too little tissue."""
    excluded: Mask | None
    """(h, w), where no nucleus is looked for; None if that is nowhere."""


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
        everything: predict tiles without tissue too, and what is black, unscanned or pen as it is.
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

    read = partial(_read, tiled, normaliser, everything)
    prefetched = prefetch(read, _tiles(grid, first_row), depth=2 * tile_model.batch_size)
    for row, tiles_of_row in groupby(prefetched, key=attrgetter("row")):
        while batch := list(islice(tiles_of_row, tile_model.batch_size)):
            with_tissue = [read_tile for read_tile in batch if read_tile.region is not None]
            for read_tile, maps in _predicted(with_tissue, tile_model, grid.tile_px):
                blend.add(read_tile.tile.to_x, maps)
            counts.done += len(batch)
            counts.skipped += len(batch) - len(with_tissue)
            counts.tissue = sum((read_tile.tissue for read_tile in batch), counts.tissue)
            progress(counts.done)
        bottom = [*starts[1:], height][row]
        maps_of_row = blend.pop_rows(bottom - starts[row])
        if kept is not None and row < len(starts) - 1:
            kept.add(maps_of_row, Checkpoint(blend.state, asdict(counts)))
        yield maps_of_row


def _read(
    tiled: TiledSlide, normaliser: Normaliser, everything: bool, place: tuple[int, Tile, tuple[slice, slice]]
) -> _ReadTile:
    """Read a tile: its number of row, the tile, and the part of it that no later tile covers."""
    row, tile, own = place
    region = tiled.region(tile)
    excluded = artefacts(region, tiled.mpp)
    tissue = Tissue.of(region[own], excluded[own])
    if everything:
        return _ReadTile(row, tile, tissue, normaliser(region), None)
    if _tissue_share(region, excluded) < MIN_TISSUE:
        return _ReadTile(row, tile, tissue, None, None)
    if not excluded.any():
        return _ReadTile(row, tile, tissue, normaliser(region), None)
    # glass in the normalised image: a normalisation by its white would brighten it once more
    as_glass = np.where(excluded[..., np.newaxis], np.uint8(LIGHT), normaliser(region))
    return _ReadTile(row, tile, tissue, as_glass, excluded)


def _kept_maps(kept: KeptRows | None, blend: Blend, counts: TileCounts) -> Generator[Maps, None, int]:
    """Yield the maps of the kept rows, restore the state after them, and return their number."""
    checkpoint = kept.checkpoint() if kept is not None else None
    if kept is None or checkpoint is None:
        return 0
    n_rows = kept.n_rows  # grows while the rows after them are predicted
    yield from kept.rows()
    blend.restore(checkpoint.blended)
    vars(counts).update({**checkpoint.counts, "tissue": Tissue(**checkpoint.counts["tissue"])})
    return n_rows


def tissue_notes(tissue: Tissue, *, everything: bool) -> list[str]:
    """What was passed over in an image, and whether it does not look like H&E."""
    notes = []
    if tissue.artefact_share >= 0.0005 and not everything:
        notes.append(
            f"{tissue.artefact_share:.1%} of the image is black, unscanned or pen and was passed over like glass. "
            "If it is part of the picture, predict it too with everything=True (--everything)."
        )
    if tissue.caution:
        notes.append(
            f"The image does not look like H&E: {tissue.caution}. Check its overlay before you use its nuclei."
        )
    return notes


def _tiles(grid: TileGrid, first_row: int) -> Iterator[tuple[int, Tile, tuple[slice, slice]]]:
    """From a row on, the number of its row, each tile, and the rows and columns of it that no later tile covers."""
    n_rows = len(grid.starts(0))
    tops = [next(grid.row(number)).y for number in range(n_rows)]
    bottoms = [*tops[1:], grid.size[0]]
    for number, bottom in enumerate(bottoms[first_row:], first_row):
        tiles = list(grid.row(number))
        for tile, right in zip(tiles, [*(following.x for following in tiles[1:]), grid.size[1]], strict=True):
            yield number, tile, (slice(bottom - tile.y), slice(right - tile.x))


def _predicted(
    read_tiles: Sequence[_ReadTile], tile_model: TileModel, tile_px: int
) -> Iterator[tuple[_ReadTile, Maps]]:
    """Tiles with their maps (C, to_h, to_w)."""
    if not read_tiles:
        return
    regions = [read_tile.region for read_tile in read_tiles if read_tile.region is not None]
    predicted = tile_model.maps([read_tile.tile for read_tile in read_tiles], regions, tile_px)
    for read_tile, maps in zip(read_tiles, predicted, strict=True):
        if read_tile.excluded is not None:
            maps[0, under_centres(read_tile.excluded, *maps.shape[1:])] = 0
        yield read_tile, maps


def _tissue_share(region: Image, excluded: Mask) -> float:
    return float((is_dense(region) & ~excluded).mean())


def _normaliser(tiled: TiledSlide, tile_model: TileModel) -> Normaliser:
    """A normalisation for the whole image, estimated on tiles with tissue spread over it."""
    if tile_model.stain == "none":
        return fit_normaliser(np.zeros((1, 1, 3), np.uint8), "none")
    tiles = [tile for number in range(len(tiled.grid.starts(0))) for tile in tiled.grid.row(number)]
    spread = np.linspace(0, len(tiles) - 1, min(len(tiles), SAMPLE_CANDIDATES)).astype(int)
    order = spread[np.argsort([int(f"{i:08b}"[::-1], 2) for i in range(len(spread))], kind="stable")]
    regions = (tiled.region(tiles[position]) for position in order.tolist())
    candidates = ((region, artefacts(region, tiled.mpp)) for region in regions)
    sample = list(islice((pair for pair in candidates if _tissue_share(*pair) >= MIN_TISSUE), SAMPLE_TILES))
    if not sample:
        return fit_normaliser(tiled.region(tiles[0]), tile_model.stain)
    chosen, excluded = zip(*sample, strict=True)
    return fit_normaliser(np.concatenate(chosen), tile_model.stain, np.concatenate(excluded))
