"""Whole slides in the formats of scanners, read with OpenSlide."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nucseg.data.colours import on_white
from nucseg.data.slides.resolution import both, number, resolution_of
from nucseg.data.slides.scenes import agrees
from nucseg.data.slides.slide import Image, Size, Slide
from nucseg.errors import DataError


def openslide_library() -> Any | None:
    """The openslide module; None if it is not installed or does not find its library."""
    try:
        import openslide
    except (ImportError, OSError):
        return None
    return openslide


class ScannerSlide(Slide):
    """A slide read with OpenSlide; areas that were not scanned are white."""

    reader = "openslide"

    def __init__(self, file: Path, openslide: Any) -> None:
        """Open a slide. Raises DataError if OpenSlide cannot."""
        super().__init__()
        self._file = file
        try:
            self._slide = openslide.OpenSlide(str(file))
        except Exception as cause:
            raise _unreadable(file, cause) from cause
        self._level_indices, self._canvases = _whole_levels(self._slide.level_dimensions)
        top, left, height, width = bounds(self._slide.properties, self._canvases[0])
        self.origin = top, left
        self.levels = [
            (max(round(height * h / self._canvases[0][0]), 1), max(round(width * w / self._canvases[0][1]), 1))
            for h, w in self._canvases
        ]
        sides = (number(self._slide.properties.get(f"openslide.mpp-{axis}")) for axis in "yx")
        resolution = resolution_of(both(*sides))
        self.mpp = resolution.mpp
        self.notes = tuple(filter(None, (resolution.note, self._box_note())))

    def _box_note(self) -> str:
        if self.size == self.canvas:
            return ""
        return (
            f"The image is the scanned part of the scanner's canvas, which QuPath shows: coordinates count from x "
            f"{self.origin[1]}, y {self.origin[0]} of the canvas of {self.canvas[1]} x {self.canvas[0]} pixels."
        )

    @property
    def canvas(self) -> Size:
        """(H, W) of the scanner's canvas, of which the image is the part that was scanned."""
        return self._canvases[0]

    def close(self) -> None:
        """See `Slide.close`."""
        self._slide.close()

    def _read_level(self, level: int, y: int, x: int, h: int, w: int) -> Image:
        down_y, down_x = (full / reduced for full, reduced in zip(self.canvas, self._canvases[level], strict=True))
        corner = self.origin[1] + round(x * down_x), self.origin[0] + round(y * down_y)
        try:
            region = self._slide.read_region(corner, self._level_indices[level], (w, h))
        except Exception as cause:
            raise _unreadable(self._file, cause) from cause
        return on_white(region)


def bounds(properties: Mapping[str, str], canvas: Size) -> tuple[int, int, int, int]:
    """Top, left, height and width of the scanned part of a canvas (H, W), which is what QuPath shows.

    The whole canvas if `openslide.bounds-*` are missing, incomplete or empty; what lies outside it is cut off.
    """
    names = ("y", "x", "height", "width")
    values = [number(properties.get(f"openslide.bounds-{name}")) for name in names]
    if all(value is not None and math.isfinite(value) for value in values):
        y, x, h, w = (int(value or 0) for value in values)
        top, left = max(y, 0), max(x, 0)
        height, width = min(y + h, canvas[0]) - top, min(x + w, canvas[1]) - left
        if height > 0 and width > 0:
            return top, left, height, width
    return 0, 0, *canvas


def _whole_levels(dimensions: Sequence[tuple[int, int]]) -> tuple[list[int], list[Size]]:
    """Indices and sizes (H, W) of the levels that show the whole canvas."""
    sizes = [(height, width) for width, height in dimensions]
    kept = [index for index, size in enumerate(sizes) if agrees(size, sizes[0])]
    return kept, [sizes[index] for index in kept]


def _unreadable(file: Path, cause: Exception) -> DataError:
    return DataError(
        f"OpenSlide cannot read {file} ({cause}). It is damaged or incomplete: download or export it again."
    )
