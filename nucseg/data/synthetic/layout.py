"""Positions in a synthetic image of white spaces, nuclei, and objects that look like nuclei."""

from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt

from nucseg.data.synthetic.tissues import Slide, Tissue

_TISSUE_PX = 512
_LYMPHOCYTE_PX = 9.5
_VAGUE_SHARE = 0.04
_SPACING = 0.75
"""Minimum distance of centres as a share of the sum of the radii; neighbours may overlap."""


@dataclass(frozen=True)
class Blob:
    """An ellipse of stain. Lengths in pixels, `angle` of the long axis in radians."""

    y: float
    x: float
    angle: float
    _: KW_ONLY
    along: float
    across: float
    hematoxylin: float = 0.0
    eosin: float = 0.0
    openness: float = 0.0
    edge_px: float = 1.0
    """Width of the edge; a wide one looks out of focus."""
    vague: bool = False
    """A nucleus so far out of focus that nobody would outline it."""

    def inside(self, yx: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Positions (2, H, W) in units of the ellipse: 0 at its centre, at distance 1 on its edge."""
        dy, dx = yx[0] - self.y, yx[1] - self.x
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        return (dx * cos + dy * sin) / self.along, (dy * cos - dx * sin) / self.across

    def radius(self, yx: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Distance of positions (2, ...) from the centre: 1 on the edge."""
        u, v = self.inside(yx)
        return np.sqrt(u * u + v * v)  # five times as fast as np.hypot

    def covers(self, y: float, x: float) -> bool:
        """Whether a point lies in the ellipse."""
        u, v = self.inside(np.array([y, x]))
        return bool(u * u + v * v < 1)


def draw_holes(tissue: Tissue, side_px: int, rng: np.random.Generator) -> list[Blob]:
    """White spaces: fat, lumen, vessels. They may overlap each other and the border."""
    radii = tissue.hole_px * rng.uniform(0.55, 1.3, _count(tissue.n_holes, side_px, rng))
    return [
        Blob(*_random_place(side_px, rng), along=radius * rng.uniform(1, 1.4), across=radius)
        for radius in radii.tolist()
    ]


def draw_distractors(side_px: int, rng: np.random.Generator) -> Iterator[Blob]:
    """Red blood cells, smears of hematoxylin and dark debris, which must not be taken for nuclei."""
    for _ in range(_count(rng.choice([0, 0, 3, 12]), side_px, rng)):
        along, across = rng.uniform(8, 12), rng.uniform(7, 10)
        yield Blob(*_random_place(side_px, rng), along=along, across=across, eosin=rng.uniform(0.4, 0.9))
    for _ in range(_count(rng.choice([2, 6]), side_px, rng)):
        along, across = rng.uniform(25, 90), rng.uniform(12, 24)
        amount = rng.uniform(0.3, 0.7)
        yield Blob(*_random_place(side_px, rng), along=along, across=across, hematoxylin=amount, edge_px=across)
    for _ in range(_count(6, side_px, rng)):
        along, across = rng.uniform(1.5, 5), rng.uniform(1.5, 3)
        yield Blob(*_random_place(side_px, rng), along=along, across=across, hematoxylin=rng.uniform(0.5, 1.6))


def draw_nuclei(
    tissue: Tissue, slide: Slide, holes: list[Blob], fibre_angle: float, side_px: int, rng: np.random.Generator
) -> list[Blob]:
    """Nuclei in the tissue with a distance of at least _SPACING; fewer than requested if there is no space."""
    n = _count(tissue.n_nuclei, side_px, rng)
    kept: list[Blob] = []
    taken = np.empty((n, 3))
    for blob in islice(_candidates(tissue, slide, holes, fibre_angle, side_px, rng), 3 * n):
        y, x, radius = place = blob.y, blob.x, (blob.along + blob.across) / 2
        others = taken[: len(kept)]
        too_close = np.hypot(others[:, 0] - y, others[:, 1] - x) < _SPACING * (others[:, 2] + radius)
        if not too_close.any() and not any(hole.covers(y, x) for hole in holes):
            taken[len(kept)] = place
            kept.append(blob)
        if len(kept) == n:
            break
    return kept


def _candidates(
    tissue: Tissue, slide: Slide, holes: list[Blob], fibre_angle: float, side_px: int, rng: np.random.Generator
) -> Iterator[Blob]:
    while True:
        lymphocyte = rng.random() < tissue.lymphocytes
        radius = (_LYMPHOCYTE_PX if lymphocyte else tissue.radius_px) * np.exp(rng.normal(0, 0.17))
        stretch = max(1.0, (1.1 if lymphocyte else tissue.elongation) * np.exp(rng.normal(0, 0.18))) ** 0.5
        vague = rng.random() < _VAGUE_SHARE
        place = _random_place(side_px, rng)
        if holes and rng.random() < tissue.rim:
            place = _at_rim(holes[rng.integers(len(holes))], radius, tissue.columnar, rng)
        elif rng.random() < tissue.alignment:
            place = (*place[:2], fibre_angle + rng.normal(0, 0.15))
        yield Blob(
            *place,
            along=radius * stretch,
            across=radius / stretch,
            hematoxylin=_chromatin(tissue, lymphocyte, rng) * slide.strength[0] * (0.55 if vague else 1),
            openness=0.1 if lymphocyte else tissue.openness * rng.uniform(0.6, 1.3),
            edge_px=rng.uniform(7, 10) if vague else rng.uniform(0.5, 3.5),
            vague=vague,
        )


def _chromatin(tissue: Tissue, lymphocyte: bool, rng: np.random.Generator) -> float:
    variation = max(0.75, np.exp(rng.normal(-0.05, 0.3)))  # paler nuclei would be labelled but not visible
    return float((1.7 if lymphocyte else tissue.chromatin) * variation)


def _at_rim(hole: Blob, radius: float, columnar: bool, rng: np.random.Generator) -> tuple[float, float, float]:
    turn = rng.uniform(0, 2 * np.pi)
    reach = 1 + (radius * rng.uniform(1.3, 2.2) if columnar else 0.7 * radius) / hole.across
    u, v = hole.along * reach * np.cos(turn), hole.across * reach * np.sin(turn)
    cos, sin = np.cos(hole.angle), np.sin(hole.angle)
    outward = np.arctan2(np.sin(turn) / hole.across, np.cos(turn) / hole.along) + hole.angle
    angle = outward + (0 if columnar else np.pi / 2) + rng.normal(0, 0.15)
    return hole.y + u * sin + v * cos, hole.x + u * cos - v * sin, angle


def _random_place(side_px: int, rng: np.random.Generator) -> tuple[float, float, float]:
    y, x, angle = rng.random(3) * (side_px, side_px, np.pi)
    return float(y), float(x), float(angle)


def _count(mean: float, side_px: int, rng: np.random.Generator) -> int:
    return int(rng.poisson(mean * (side_px / _TISSUE_PX) ** 2))
