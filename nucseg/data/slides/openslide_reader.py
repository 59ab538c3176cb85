"""Whole slides in the formats of scanners, read with OpenSlide."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as PillowImage

from nucseg.data.slides.resolution import number, plausible
from nucseg.data.slides.slide import Image, Slide
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
        self.levels = [(height, width) for width, height in self._slide.level_dimensions]
        self.mpp = plausible(number(self._slide.properties.get("openslide.mpp-x")))

    def close(self) -> None:
        """See `Slide.close`."""
        self._slide.close()

    def _read_level(self, level: int, y: int, x: int, h: int, w: int) -> Image:
        down_y, down_x = (full / reduced for full, reduced in zip(self.levels[0], self.levels[level], strict=True))
        try:
            region = self._slide.read_region((round(x * down_x), round(y * down_y)), level, (w, h))
        except Exception as cause:
            raise _unreadable(self._file, cause) from cause
        on_white = PillowImage.new("RGBA", region.size, "white")
        on_white.alpha_composite(region)
        return np.array(on_white.convert("RGB"))


def _unreadable(file: Path, cause: Exception) -> DataError:
    return DataError(
        f"OpenSlide cannot read {file} ({cause}). It is damaged or incomplete: download or export it again."
    )
