"""A scanner's canvas is cut to the part that was scanned, which is what QuPath shows."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nucseg.data.slides.openslide_reader import ScannerSlide

CANVAS = np.zeros((600, 800, 4), np.uint8)
CANVAS[..., 0], CANVAS[..., 1] = np.arange(600)[:, None] // 4, np.arange(800)[None] // 4
CANVAS[..., 3] = 255


class Scanned:
    """OpenSlide's interface to a canvas with levels of any size."""

    def __init__(self, levels: list[tuple[int, int]], properties: dict[str, str]) -> None:
        self.properties = properties
        self.level_dimensions = tuple((w, h) for h, w in levels)
        self._levels = [np.asarray(Image.fromarray(CANVAS).resize(size, 0)) for size in self.level_dimensions]

    def read_region(self, corner: tuple[int, int], level: int, size: tuple[int, int]) -> Image.Image:
        across, down = (full / reduced for full, reduced in zip((800, 600), self.level_dimensions[level], strict=True))
        x, y = round(corner[0] / across), round(corner[1] / down)
        region = np.zeros((size[1], size[0], 4), np.uint8)
        part = self._levels[level][y : y + size[1], x : x + size[0]]
        region[: part.shape[0], : part.shape[1]] = part
        return Image.fromarray(region)

    def close(self) -> None:
        pass


def opened(levels: list[tuple[int, int]] | None = None, **properties: Any) -> ScannerSlide:
    named = {f"openslide.{name.replace('_', '-')}": str(value) for name, value in properties.items()}
    library = SimpleNamespace(OpenSlide=lambda file: Scanned(levels or [(600, 800)], named))
    return ScannerSlide(Path("a.mrxs"), library)


def test_the_image_is_the_box_of_the_bounds() -> None:
    """qupath #1278, FAST-Pathology #76, dlup #160: outlines were off their nuclei by the corner of the box."""
    slide = opened(bounds_x=160, bounds_y=80, bounds_width=320, bounds_height=240)
    assert (slide.size, slide.origin, slide.canvas) == ((240, 320), (80, 160), (600, 800))
    np.testing.assert_array_equal(slide.read(0, 0, 240, 320), CANVAS[80:320, 160:480, :3])
    np.testing.assert_array_equal(slide.read(7, 9, 20, 30), CANVAS[87:107, 169:199, :3])
    assert "count from x 160, y 80 of the canvas of 800 x 600 pixels" in " ".join(slide.notes)


def test_smaller_levels_are_cut_to_the_same_box() -> None:
    slide = opened([(600, 800), (300, 400), (75, 100)], bounds_x=160, bounds_y=80, bounds_width=320, bounds_height=240)
    assert slide.levels == [(240, 320), (120, 160), (30, 40)]
    for h, w in slide.levels[1:]:
        reduced = slide.read(0, 0, h, w, grid=(h, w)).astype(float)
        step = 240 // h
        wanted = CANVAS[80:320, 160:480, :3].reshape(h, step, w, step, 3).mean(axis=(1, 3))
        assert np.abs(reduced - wanted).max() <= 2


@pytest.mark.parametrize(
    "properties",
    [
        {},
        {"bounds_x": 160, "bounds_y": 80},
        {"bounds_width": 320, "bounds_height": 240},
        {"bounds_x": 160, "bounds_y": 80, "bounds_width": 0, "bounds_height": 240},
        {"bounds_x": 900, "bounds_y": 80, "bounds_width": 320, "bounds_height": 240},
        {"bounds_x": "nan", "bounds_y": "", "bounds_width": "?", "bounds_height": "inf"},
        {"bounds_x": 0, "bounds_y": 0, "bounds_width": 800, "bounds_height": 600},
    ],
)
def test_without_complete_bounds_the_image_is_the_canvas(properties) -> None:
    slide = opened(**properties)
    assert (slide.size, slide.origin, slide.notes) == ((600, 800), (0, 0), ())
    np.testing.assert_array_equal(slide.read(0, 0, 600, 800), CANVAS[..., :3])


@pytest.mark.parametrize(
    ("box", "size", "origin"),
    [((160, 80, 9999, 9999), (520, 640), (80, 160)), ((-100, -50, 400, 300), (250, 300), (0, 0))],
)
def test_bounds_beyond_the_canvas_are_cut_off(box, size, origin) -> None:
    slide = opened(**dict(zip(("bounds_x", "bounds_y", "bounds_width", "bounds_height"), box, strict=True)))
    assert (slide.size, slide.origin) == (size, origin)


def test_a_level_of_another_shape_is_not_used() -> None:
    slide = opened([(600, 800), (300, 300), (150, 200)])
    assert slide.levels == [(600, 800), (150, 200)]
    assert np.abs(slide.read(0, 0, 150, 200, grid=(150, 200)).astype(int) - CANVAS[::4, ::4, :3]).max() <= 1


def test_both_sides_of_a_pixel_are_read() -> None:
    assert opened(mpp_x=0.25, mpp_y=0.5).mpp == (0.5, 0.25)
    assert opened(mpp_x=0.25).mpp == (0.25, 0.25)
    assert opened().mpp is None
    implausible = opened(mpp_x=250, mpp_y=250)
    assert implausible.mpp is None
    assert "pixels of 250 x 250 microns" in " ".join(implausible.notes)
