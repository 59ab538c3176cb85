"""Tiles cover an image in the geometry of preparation, and blending reproduces what they agree on."""

import numpy as np
import pytest

from nucseg.data import content_size
from nucseg.errors import ConfigError
from nucseg.tiling import Blend, TileGrid, blend_weights


def blended(grid: TileGrid, values: np.ndarray) -> np.ndarray:
    """Cut a map (H, W) of the network's grid into tiles and blend them."""
    starts, (height, width) = grid.starts(0), grid.extent
    blend, rows = Blend(1, grid.side_px, width), []
    for number, bottom in enumerate([*starts[1:], height]):
        for tile in grid.row(number):
            blend.add(tile.to_x, values[None, tile.to_y : tile.to_y + tile.to_h, tile.to_x : tile.to_x + tile.to_w])
        rows.append(blend.pop_rows(bottom - starts[number])[0])
    return np.concatenate(rows)


@pytest.mark.parametrize("size", [(512, 512), (300, 1200), (1201, 999), (40, 30), (2000, 513)])
@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5])
@pytest.mark.parametrize("shift", [(0, 0), (13, 40)])
def test_tiles_that_agree_are_blended_to_their_values(
    size: tuple[int, int], overlap: float, shift: tuple[int, int]
) -> None:
    grid = TileGrid(size=size, tile_px=512, side_px=64, overlap=overlap, shift=shift)
    values = np.random.default_rng(0).random(grid.extent, np.float32)

    np.testing.assert_allclose(blended(grid, values), values, atol=2e-6)


def test_tiles_that_disagree_are_blended_smoothly() -> None:
    grid = TileGrid(size=(64, 112), tile_px=64, side_px=64, overlap=0.25)
    blend = Blend(1, 64, 112)
    for tile, value in zip(grid.row(0), (0.0, 1.0), strict=True):
        blend.add(tile.to_x, np.full((1, 64, 64), value, np.float32))
    (row,) = blend.pop_rows(64)[:, 30]

    assert (row[:48] == 0).all()
    assert (row[64:] == 1).all()
    weights = np.sin(np.pi * (np.arange(64) + 0.5) / 64) ** 2
    np.testing.assert_allclose(row[48:64], weights[:16] / (weights[:16] + weights[48:]), atol=1e-6)


def test_the_blend_is_zero_where_there_is_no_tile() -> None:
    blend = Blend(2, 8, 20)
    blend.add(12, np.ones((2, 8, 8), np.float32))
    rows = blend.pop_rows(8)
    assert (rows[:, :, :12] == 0).all()
    np.testing.assert_allclose(rows[:, :, 12:], 1)


def test_weights_are_positive_symmetric_and_largest_in_the_middle() -> None:
    weights = blend_weights(256)
    assert weights.min() > 0
    np.testing.assert_array_equal(weights, weights[::-1])
    np.testing.assert_array_equal(weights, weights.T)
    assert weights[127, 127] == weights.max()


@pytest.mark.parametrize("size", [(512, 512), (512, 301), (77, 512)])
def test_an_image_no_larger_than_those_of_the_training_is_one_tile_prepared_like_them(size: tuple[int, int]) -> None:
    grid = TileGrid(size=size, tile_px=512, side_px=256)
    (tile,) = grid.row(0)
    assert grid.starts(0) == grid.starts(1) == [0]
    assert (tile.h, tile.w) == size
    assert (tile.to_h, tile.to_w) == grid.extent == content_size(size, 256)


@pytest.mark.parametrize("tile_px", [512, 320, 1000, 128])
@pytest.mark.parametrize("length", [1024, 1777, 4001])
def test_tiles_lie_within_the_image_and_match_their_place_on_the_networks_grid_to_a_pixel(
    tile_px: int, length: int
) -> None:
    grid = TileGrid(size=(length, length), tile_px=tile_px, side_px=256)
    scale = tile_px / 256
    for number in range(len(grid.starts(0))):
        for tile in grid.row(number):
            assert 0 <= tile.x <= length - tile_px
            assert (tile.w, tile.to_w) == (tile_px, 256)
            assert abs(tile.x - tile.to_x * scale) <= max(scale, 0.5)
    assert grid.starts(1)[-1] + 256 == grid.extent[1]
    assert 0 <= grid.extent[1] * scale - length < scale


@pytest.mark.parametrize("overlap", [-0.1, 0.9])
def test_an_overlap_out_of_range_is_refused(overlap: float) -> None:
    with pytest.raises(ConfigError, match="overlap must be a share"):
        TileGrid(size=(9, 9), tile_px=4, side_px=4, overlap=overlap)


def test_an_image_of_no_pixels_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least one pixel"):
        TileGrid(size=(0, 9), tile_px=4, side_px=4)
