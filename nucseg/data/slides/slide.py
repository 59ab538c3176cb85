"""The interface of images of any size: levels, resolution, and regions at any scale."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from threading import Lock

import numpy as np
import numpy.typing as npt

from nucseg.data.resampling import resampled
from nucseg.data.slides.resolution import Mpp
from nucseg.errors import DataError

Image = npt.NDArray[np.uint8]
Size = tuple[int, int]


class Slide(ABC):
    """An image that is read by regions. Several threads may read; they wait for each other."""

    levels: Sequence[Size]
    """(H, W) of the image, then of the smaller copies in the file."""
    mpp: Mpp | None = None
    """Microns per pixel down and across according to the file; None if missing or implausible."""
    scene: str | None = None
    """Name of the scene if the file has several."""
    origin: tuple[int, int] = (0, 0)
    """Row and column of the first pixel on the scanner's canvas, of which the image can be a part."""
    notes: tuple[str, ...] = ()
    """What a user must know about how the file was read."""
    reader: str = ""
    """Name of the library that reads it."""
    files: Sequence[Path] = ()
    """Every file that it is read from; none for an array."""

    def __init__(self) -> None:
        self._lock = Lock()

    @property
    def size(self) -> Size:
        """(H, W) of the image in pixels."""
        return self.levels[0]

    def read(self, y: int, x: int, h: int, w: int, *, grid: Size | None = None) -> Image:
        """Read a region as (h, w, 3) uint8 RGB.

        Args:
            y: first row, on the grid.
            x: first column.
            h: rows.
            w: columns; the region lies within the grid.
            grid: (H, W) to which the whole image would be resized; None is the native size. If the grid is smaller,
                pixels are means over what they cover (as in preparation), computed from the smallest level that is at
                least as large as the grid; if it is larger, they are interpolated.

        Raises:
            DataError: the file is damaged.
        """
        target = self.size if grid is None else grid
        level = self._level_for(target)
        if self.levels[level] == target:
            return self._locked(level, y, x, h, w)
        (top, bottom, step_y), (left, right, step_x) = (
            _source(start, n, self.levels[level][axis], target[axis])
            for axis, (start, n) in enumerate([(y, h), (x, w)])
        )
        values = self._locked(level, top, left, bottom - top, right - left).astype(np.float32)
        rows = resampled(values, y * step_y - top, step_y, h, axis=0)
        both = resampled(rows, x * step_x - left, step_x, w, axis=1)
        return np.asarray(np.floor(both + 0.5), np.uint8)

    def close(self) -> None:  # noqa: B027 - an array has nothing to close
        """Close the file."""

    @abstractmethod
    def _read_level(self, level: int, y: int, x: int, h: int, w: int) -> Image:
        """Read a region of a level, in pixels of the level, as (h, w, 3)."""

    def _locked(self, level: int, y: int, x: int, h: int, w: int) -> Image:
        with self._lock:
            return self._read_level(level, y, x, h, w)

    def _level_for(self, target: Size) -> int:
        """The smallest level that is no smaller than the grid, up to rounding."""
        large_enough = [
            level
            for level, size in enumerate(self.levels)
            if all(extent >= wanted - 1 for extent, wanted in zip(size, target, strict=True))
        ]
        return min(large_enough, key=lambda level: math.prod(self.levels[level]), default=0)


class ArraySlide(Slide):
    """An image in memory."""

    reader = "memory"

    def __init__(self, image: Image, mpp: Mpp | None = None) -> None:
        """Take an image (H, W, 3) uint8 RGB. Raises DataError for anything else."""
        super().__init__()
        if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            found = f"{image.dtype} of shape {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
            raise DataError(f"An image must be uint8 RGB of shape (H, W, 3), got {found}. Convert it first.")
        if 0 in image.shape:
            raise DataError(f"An image must have at least one pixel, got shape {image.shape}.")
        self._image, self.mpp = image, mpp
        self.levels = [(image.shape[0], image.shape[1])]

    def _read_level(self, level: int, y: int, x: int, h: int, w: int) -> Image:
        return self._image[y : y + h, x : x + w]


def orientation_note(orientation: object) -> str:
    """What to say about an Orientation tag, of TIFF or EXIF; nothing if it is the usual one."""
    if orientation in (1, 0, None):
        return ""
    return (
        f"The file's Orientation tag is {orientation}. It is not applied: outlines and masks belong to the pixels as "
        "they are stored, as ImageJ shows them."
    )


def _source(start: int, n: int, native: int, target: int) -> tuple[int, int, float]:
    """First and last (exclusive) native pixel under n grid pixels, with a margin of 1, and their ratio."""
    step = native / target
    return max(math.floor(start * step) - 1, 0), min(math.ceil((start + n) * step) + 1, native), step
