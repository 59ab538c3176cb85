"""Outlines are valid polygons that cover exactly the pixels of their mask."""

import numpy as np
import pytest
from scipy import ndimage

from nucseg.nuclei.polygons import outline

shapely = pytest.importorskip("shapely")

SHAPES = {
    "a pixel": ["#"],
    "a ring": ["###", "#.#", "###"],
    "a ring closed by corners": ["###", "#.#", ".##", "##."],
    "a hole at a corner": ["####", "#.##", "##.#", "####"],
    "two holes and an outside at one corner": ["#####", "#.#.#", "##.##", "#.#.#", "#####"],
    "a corner in common": ["##.", "#.#", "###"],
    "a staircase": ["#...", "##..", ".##.", "..##"],
}


def mask_of(rows: list[str]) -> np.ndarray:
    return np.array([[cell == "#" for cell in row] for row in rows])


def random_mask(seed: int) -> np.ndarray:
    parts, _ = ndimage.label(np.random.default_rng(seed).random((24, 24)) < 0.65)
    return parts == np.bincount(parts.ravel())[1:].argmax() + 1


@pytest.mark.parametrize(
    "mask", [*map(mask_of, SHAPES.values()), *map(random_mask, range(30))], ids=[*SHAPES, *map(str, range(30))]
)
def test_an_outline_is_a_valid_polygon_of_exactly_the_pixels(mask) -> None:
    outer, *holes = outline(mask, x=7, y=3)
    polygon = shapely.Polygon(outer, holes)

    assert polygon.is_valid, shapely.is_valid_reason(polygon)
    assert polygon.area == mask.sum()
    y, x = np.mgrid[: mask.shape[0], : mask.shape[1]]
    np.testing.assert_array_equal(shapely.contains_xy(polygon, x + 7.5, y + 3.5), mask)


def test_rings_have_the_orientation_of_geojson_and_no_points_but_corners() -> None:
    outer, hole = outline(mask_of(["####", "#..#", "####"]))
    assert shapely.LinearRing(outer).is_ccw
    assert not shapely.LinearRing(hole).is_ccw
    assert sorted(outer[:-1]) == [(0, 0), (0, 3), (4, 0), (4, 3)]
    assert sorted(hole[:-1]) == [(1, 1), (1, 2), (3, 1), (3, 2)]
    assert outer[0] == outer[-1]
