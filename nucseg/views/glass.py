"""Glass over a part of an image: smooth random shapes in white, gray or black with soft borders.

A network that only sees tissue everywhere may rely on statistics of the whole image, which glass or an unscanned area
changes. Shapes are given relative to the image, so that masks on any grid can be covered in the same way.
"""

import json
import random
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nucseg.errors import ConfigError
from nucseg.photometric.ranges import Range
from nucseg.views.base import Image

GLASS = "glass"
"""Key of the glass in `View.described`."""

_LABEL = "Glass 1"  # increase the number when the same draw gives other pixels
_TINT, _NOISE, _BLACKEST, _BORDER_PX = 6.0, 3.0, (0.0, 16.0), (2.0, 6.0)
_GRID = 64  # cells per side on which the level of the drawn area is found
_BLOCK_PX = 1 << 18

Opacity = npt.NDArray[np.float64]
_Numbers = tuple[float, ...]


@dataclass(frozen=True)
class GlassCover:
    """The glass over one image."""

    is_blob: bool
    """A blob, or else all that lies on one side of a wavy line."""
    centre: tuple[float, float]
    """Centre of a blob (down, right), as a share of the image's height and width."""
    angle: float
    """Direction in which the line is crossed, in radians."""
    amplitudes: _Numbers
    phases: _Numbers
    """Of three waves along the line or around the blob."""
    area: float
    """Share of the image that is covered."""
    colour: _Numbers
    """Mean grey levels in R, G, B."""
    noise: float
    """Largest deviation of a pixel from the mean, in grey levels."""
    border_px: float
    """Width of the soft border in native pixels."""
    seed: int
    """Of the noise."""

    def opacity(self, size: tuple[int, int], rows: npt.ArrayLike, columns: npt.ArrayLike) -> Opacity:
        """How much of each pixel is glass: 0 to 1, (len(rows), len(columns)), in an image of native size (H, W)."""
        cells = (np.arange(_GRID) + 0.5) / _GRID
        level = np.sort(self._field(size, cells, cells), axis=None)[round(self.area * (_GRID**2 - 1))]
        down, right = ((np.asarray(at) + 0.5) / extent for at, extent in zip((rows, columns), size, strict=True))
        depth_px = (level - self._field(size, down, right)) * max(size)
        return np.asarray((depth_px / self.border_px + 0.5).clip(0, 1))

    def __call__(self, image: Image) -> Image:
        """Cover a part of an image (H, W, 3)."""
        height, width = image.shape[:2]
        bits = np.random.PCG64(self.seed)  # whose stream is the same in every version of numpy
        covered = image.copy()
        n_rows = max(_BLOCK_PX // width, 1)
        for first in range(0, height, n_rows):  # in blocks: floats take many times the memory of the image
            block = covered[first : first + n_rows]
            raw = bits.random_raw(-(-block.size // 8)).view(np.uint8)[: block.size].reshape(block.shape)
            glass = np.asarray(self.colour) + self.noise * (raw / 127.5 - 1)
            rows = np.arange(first, first + len(block))
            opacity = self.opacity((height, width), rows, np.arange(width))[..., np.newaxis]
            block[:] = np.rint(opacity * glass.clip(0, 255) + (1 - opacity) * block)
        return covered

    def _field(self, size: tuple[int, int], down: Opacity, right: Opacity) -> Opacity:
        """Distance of positions (shares of H and W) from the glass's inside, in units of the image's longer side."""
        y, x = (
            (at - middle) * extent / max(size)
            for at, middle, extent in zip((down[:, np.newaxis], right), self.centre, size, strict=True)
        )
        if self.is_blob:
            return np.asarray(np.hypot(y, x) / (1 + self._waves(np.arctan2(y, x), first=2)))
        along, across = x * np.cos(self.angle) - y * np.sin(self.angle), x * np.sin(self.angle) + y * np.cos(self.angle)
        return np.asarray(across + self._waves(2 * np.pi * along, first=1) / 4)

    def _waves(self, angle: Opacity, first: int) -> Opacity:
        parts = enumerate(zip(self.amplitudes, self.phases, strict=True), first)
        return np.asarray(sum(amplitude / n * np.cos(n * angle + phase) for n, (amplitude, phase) in parts))


@dataclass(frozen=True)
class Glass:
    """A distribution of glass over images."""

    area: Range
    """Smallest and largest share of the image that is covered."""
    level: Range
    """Darkest and brightest mean grey level, but for black."""
    black: float
    """Probability that the cover is black, as an unscanned area is."""

    @property
    def described(self) -> str:
        """The distribution and the version of its arithmetic, for `View.described`."""
        values = {"area": self.area, "black": self.black, "level": self.level}
        return f"{_LABEL}, {json.dumps(values)}"

    @classmethod
    def parse(cls, described: str) -> "Glass":
        """The distribution that was described; ConfigError if this version cannot draw it."""
        label, _, values = described.partition(", ")
        if label != _LABEL:
            raise ConfigError(
                f"This version draws {_LABEL}, not {label}, so it cannot cover masks in the same way. Use the version "
                "that embedded these views, or embed them again under another name."
            )
        read = json.loads(values)
        return cls(tuple(read["area"]), tuple(read["level"]), read["black"])

    def draw(self, draws: random.Random) -> GlassCover:
        """Draw a cover, always with the same number of draws."""
        is_blob, angle = draws.random() < 0.5, draws.uniform(0, 2 * np.pi)
        centre = draws.uniform(0, 1), draws.uniform(0, 1)
        amplitudes = tuple(draws.uniform(0, 0.4) for _ in range(3))
        phases = tuple(draws.uniform(0, 2 * np.pi) for _ in range(3))
        area, is_black = draws.uniform(*self.area), draws.random() < self.black
        gray, dark, tints = draws.uniform(*self.level), draws.uniform(*_BLACKEST), [draws.random() for _ in range(3)]
        colour = (dark,) * 3 if is_black else tuple(min(gray + _TINT * (tint - 0.5), 255) for tint in tints)
        noise, border_px = draws.uniform(0, _NOISE), draws.uniform(*_BORDER_PX)
        seed = int(draws.random() * 2**53)
        return GlassCover(is_blob, centre, angle, amplitudes, phases, area, colour, noise, border_px, seed)
