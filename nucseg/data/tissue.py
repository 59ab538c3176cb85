"""Which pixels of an image are tissue, and whether the tissue looks like H&E.

Glass, what a scanner left black or filled with one gray, and pen are not tissue: no nucleus is looked for there, no
stain is estimated from it, and it does not count as area of tissue.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt

LIGHT, GLASS = 240.0, 0.15
"""Transmitted light, and the optical density below which a pixel is glass; both are Macenko's."""

DENSITY = -np.log((np.arange(256) + 1) / LIGHT).astype(np.float32)
"""Optical density of each of the 256 levels."""

MIN_TISSUE_PX = 64
"""Fewer pixels of tissue than this say nothing about its stains."""

MIN_BLACK_PX, MIN_ARTEFACT_PX = 32, 512
"""Smallest connected areas that are artefacts: of black, and of dark gray, of one gray, or of a pen's colour."""

USUAL_MPP = 0.25
"""Microns per pixel down to which the smallest areas are these numbers of pixels."""

UNKNOWN_MIN_PX = 100, 700, 1600
"""Smallest areas of black, of a pen's colour and of dark gray if the resolution is not known: more than 88, 657 and
1557, which are those in the images named in `artefacts` at twice their size."""

ARTEFACT_RIM_PX = 3
"""Width of the rim around an artefact that counts as part of it: resampling and JPEG mix the colours at its border."""

MIN_CHROMA, MAX_DENSITY, MIN_GREEN = 6.0, 2.5, 0.97
"""What tissue in H&E has, see `Tissue.caution`."""

_LIGHTEST_DENSE = np.uint8(np.flatnonzero(DENSITY >= GLASS)[-1])
_RED, _BLUE = DENSITY[:, np.newaxis], DENSITY
_BLUE_PEN = np.uint8(_RED > 0.9) * (_BLUE < 0.35 * _RED) + (_RED > 1) * (_BLUE < _RED / 5)
"""(256, 256), whether red and blue are those of a blue pen: 0 never, 1 where green is above red, 2 always."""
_BLOCK_PX = 1 << 18
_SHIFTS = slice(None, -1), slice(1, None)

Image = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]


def is_dense(image: Image) -> Mask:
    """Whether the pixels (H, W) of an image (H, W, 3) are denser than glass in any channel."""
    dense: Mask = lowest(image) <= _LIGHTEST_DENSE
    return dense


def lowest(image: Image) -> npt.NDArray[np.uint8]:
    """The darkest channel (H, W) of each pixel, an order of magnitude faster than a minimum over the last axis."""
    return np.minimum(np.minimum(image[..., 0], image[..., 1]), image[..., 2])


def highest(image: Image) -> npt.NDArray[np.uint8]:
    """The brightest channel (H, W) of each pixel."""
    return np.maximum(np.maximum(image[..., 0], image[..., 1]), image[..., 2])


def artefacts(image: Image, mpp: float | None = None) -> Mask:
    """Whether the pixels (H, W) of an image (H, W, 3) are black, unscanned or pen.

    An artefact is denser than glass, and a connected area of at least `MIN_BLACK_PX` pixels of black (no channel above
    16), or of at least `MIN_ARTEFACT_PX` pixels of dark gray (no channel above 64), of one gray, or of a colour that
    H&E does not have: green above red and blue, red absorbed far more than blue and more than green, or a bright red
    that absorbs both. A rim of `ARTEFACT_RIM_PX` belongs to it. Dark gray is left in an image that is gray itself.

    Nuclei are dark but violet, pigment is black but small. None of the 236 H&E images of NuInsSeg (124), CryoNuSeg (5)
    and the Data Science Bowl 2018 (107) has an artefact, neither as they are, nor resized to 256 pixels or to 1.25, 1.5
    or 2 times their size. Their largest areas are 20 pixels of black, 321 of dark gray (pigment in a spleen), none of
    one gray, and 144 of a pen's colour.

    Args:
        image: (H, W, 3).
        mpp: microns per pixel. If they are less than `USUAL_MPP`, the smallest areas of black, dark gray and pen have
            as many more pixels; if they are not known, see `UNKNOWN_MIN_PX`.
    """
    least: Sequence[float] = UNKNOWN_MIN_PX
    if mpp is not None:
        least = [min_px * max(USUAL_MPP / mpp, 1) ** 2 for min_px in (MIN_BLACK_PX, MIN_ARTEFACT_PX, MIN_ARTEFACT_PX)]
    if np.count_nonzero(is_dense(image)) < MIN_BLACK_PX:
        return np.zeros(image.shape[:2], np.bool_)
    black, dark, pen = np.zeros((3, *image.shape[:2]), np.bool_)
    n_rows = max(_BLOCK_PX // image.shape[1], 1)
    for first in range(0, len(image), n_rows):  # a block at a time, because the temporaries take more memory
        rows = slice(first, first + n_rows)
        black[rows], dark[rows], pen[rows] = _suspects(image[rows])
    found = _one_gray(image)
    for mask, min_px in zip((black, pen, pen | (black if _is_gray(image, dark, pen) else dark)), least, strict=True):
        found |= _large(mask, min_px)
    if not found.any():
        return found
    from scipy import ndimage  # slow to import, and most images have no artefact

    return np.asarray(ndimage.maximum_filter(found, size=2 * ARTEFACT_RIM_PX + 1), np.bool_)


@dataclass(frozen=True)
class Tissue:
    """Sums over the pixels of an image; those of its parts add up."""

    n_px: int = 0
    n_tissue_px: int = 0
    n_artefact_px: int = 0
    density: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Optical density of the tissue in red, green and blue."""
    chroma: float = 0.0
    """Difference of the highest and the lowest channel over the tissue, in levels."""

    @classmethod
    def of(cls, image: Image, excluded: Mask | None = None) -> Tissue:
        """Sum over an image (H, W, 3); `excluded` are its artefacts (H, W) if they are known."""
        excluded = artefacts(image) if excluded is None else excluded
        tissue = is_dense(image) & ~excluded
        levels = (np.bincount(image[..., channel][tissue], minlength=256) for channel in range(3))
        red, green, blue = (float(counts @ np.maximum(DENSITY, 0).astype(np.float64)) for counts in levels)
        chroma = float((highest(image) - lowest(image))[tissue].sum(dtype=np.int64))
        n_tissue, n_artefact = int(np.count_nonzero(tissue)), int(np.count_nonzero(excluded))
        return cls(excluded.size, n_tissue, n_artefact, (red, green, blue), chroma)

    def __add__(self, other: Tissue) -> Tissue:
        red, green, blue = (own + more for own, more in zip(self.density, other.density, strict=True))
        return Tissue(
            self.n_px + other.n_px,
            self.n_tissue_px + other.n_tissue_px,
            self.n_artefact_px + other.n_artefact_px,
            (red, green, blue),
            self.chroma + other.chroma,
        )

    @property
    def share(self) -> float:
        """Share of the pixels that are tissue."""
        return self.n_tissue_px / self.n_px if self.n_px else 0.0

    @property
    def artefact_share(self) -> float:
        """Share of the pixels that are artefacts."""
        return self.n_artefact_px / self.n_px if self.n_px else 0.0

    @property
    def is_gray(self) -> bool:
        """Whether there is tissue, and its mean chroma is below `MIN_CHROMA`."""
        return self.n_tissue_px >= MIN_TISSUE_PX and self.chroma < MIN_CHROMA * self.n_tissue_px

    @property
    def caution(self) -> str:
        """Why the image does not look like H&E; empty if it does.

        The means over the tissue decide. Its chroma is at least `MIN_CHROMA` levels: 12.2 in the least coloured of the
        236 H&E images named in `artefacts`, 0 in gray ones. Its optical density is at most `MAX_DENSITY`: 1.9 in the
        darkest, above 4 in drawings of fluorescence on black. Green is absorbed at least `MIN_GREEN` times as much as
        red and as blue: 1.01 in the image that is closest, at most 0.93 in inverted ones. Images in which brown (DAB)
        or haematoxylin prevails pass for H&E: the ranges overlap.
        """
        if self.n_tissue_px < MIN_TISSUE_PX:
            return f"it has no tissue: {self.artefact_share:.0%} is black, unscanned or pen, the rest is glass"
        red, green, blue = (value / self.n_tissue_px for value in self.density)
        if self.is_gray:
            return "it is gray"
        if max(red, green, blue) > MAX_DENSITY:
            return "it is bright on black, as in fluorescence"
        if green < MIN_GREEN * max(red, blue):
            return f"{'red' if red > blue else 'blue'} is absorbed more than green"
        return ""


def _suspects(image: Image) -> tuple[Mask, Mask, Mask]:
    """Pixels (H, W) that are black, that are black or dark gray, and that have the colour of a pen."""
    red, green, blue = np.ascontiguousarray(np.moveaxis(image, -1, 0))
    low, high = np.minimum(np.minimum(red, green), blue), np.maximum(np.maximum(red, green), blue)
    neutral = high - low <= 12
    green_pen = (green > np.minimum(red, 235) + 20) & (green > blue) & (low <= _LIGHTEST_DENSE)
    red_pen = (red > 140) & (green < 70) & (blue < 70)
    blue_pen = _BLUE_PEN.take(np.uint16(256) * red + blue) + (green > red) >= 2
    return neutral & (high <= 16), neutral & (high <= 64), green_pen | red_pen | blue_pen


def _is_gray(image: Image, dark: Mask, pen: Mask) -> bool:
    """Whether an image with dark gray has other gray, too, and more than the edges of a black stroke on glass."""
    n_dark = int(np.count_nonzero(dark))
    if n_dark < MIN_ARTEFACT_PX:
        return False
    others = Tissue.of(image, dark | pen)
    return others.is_gray and 2 * others.n_tissue_px > n_dark


def _one_gray(image: Image) -> Mask:
    """The connected areas (H, W) of one gray that is denser than glass, made up of squares of 2 x 2 equal pixels."""
    found: Mask = np.zeros(image.shape[:2], np.bool_)
    corner, levels = image[:-1, :-1], highest(image)
    square: Mask = np.ones(corner.shape[:2], np.bool_)
    for channel in (1, 0, 2):
        plane = np.ascontiguousarray(image[..., channel])
        for rows, columns in product(_SHIFTS, _SHIFTS):
            square &= plane[rows, columns] == plane[:-1, :-1]
        if 4 * np.count_nonzero(square) < MIN_ARTEFACT_PX:  # nearly always after one channel
            return found
    square &= (highest(corner) - lowest(corner) <= 6) & is_dense(corner)
    flat = found.copy()
    for rows, columns in product(_SHIFTS, _SHIFTS):
        flat[rows, columns] |= square
    for level in np.flatnonzero(np.bincount(levels[flat], minlength=256) >= MIN_ARTEFACT_PX):
        found |= _large(flat & (levels == level), MIN_ARTEFACT_PX)
    return found


def _large(mask: Mask, min_px: float) -> Mask:
    """The connected areas (also over corners) of at least so many pixels."""
    if np.count_nonzero(mask) < min_px:
        return np.zeros_like(mask)
    from scipy import ndimage

    areas, _ = ndimage.label(mask, np.ones((3, 3)))
    is_large = np.bincount(areas.ravel()) >= min_px
    is_large[0] = False
    large: Mask = is_large[areas]
    return large
