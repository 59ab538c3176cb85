"""The appearance of synthetic images: six tissues, and the staining and focus of each slide."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

# Absorbance of the two stains in red, green and blue: the reference vectors of Macenko et al. 2009
_HEMATOXYLIN = np.array([0.56, 0.72, 0.41])
_EOSIN = np.array([0.22, 0.80, 0.56])


@dataclass(frozen=True, kw_only=True)
class Tissue:
    """Appearance of a tissue. Lengths in pixels, amounts of stain in units of the vectors above (natural logarithm)."""

    name: str
    n_nuclei: int
    """Nuclei in 512 x 512 pixels, on average."""
    radius_px: float
    elongation: float
    """Long axis over short axis, on average."""
    alignment: float = 0.0
    """0: nuclei have any direction, 1: all are along the fibres."""
    chromatin: float = 1.3
    """Hematoxylin in a nucleus."""
    openness: float = 0.3
    """0: nuclei are evenly dark, 1: a dark rim around a pale centre with nucleoli."""
    lymphocytes: float = 0.1
    """Share of nuclei that are small, round and dark instead."""
    eosin: float = 0.5
    fibres: float = 0.1
    """Contrast of the streaks in the background."""
    clumps: float = 0.15
    """Contrast of the cell-sized clumps in the background."""
    n_holes: int = 0
    """White spaces (fat, lumen, vessels) in 512 x 512 pixels, on average."""
    hole_px: float = 40.0
    rim: float = 0.0
    """Share of nuclei that line the white spaces."""
    columnar: bool = False
    """Whether nuclei at a white space point away from it instead of along it."""


TISSUES = (
    Tissue(name="lymphoid", n_nuclei=200, radius_px=13, elongation=1.15, lymphocytes=0.4, eosin=0.4, clumps=0.3),
    Tissue(name="glandular", n_nuclei=100, radius_px=15, elongation=1.6, openness=0.5, n_holes=4, hole_px=46,
           rim=0.7, columnar=True, clumps=0.3),
    Tissue(name="fibrous", n_nuclei=36, radius_px=14, elongation=3.0, alignment=0.85, chromatin=1.5,
           lymphocytes=0.15, eosin=0.7, fibres=0.45),
    Tissue(name="fatty", n_nuclei=30, radius_px=12, elongation=2.0, lymphocytes=0.2, n_holes=11, hole_px=62, rim=0.7,
           fibres=0.25),
    Tissue(name="neural", n_nuclei=28, radius_px=13, elongation=1.3, chromatin=1.1, openness=0.4, lymphocytes=0.25,
           clumps=0.12, fibres=0.15),
    Tissue(name="hepatic", n_nuclei=46, radius_px=18, elongation=1.1, chromatin=1.1, openness=0.7, eosin=0.75,
           n_holes=2, hole_px=24, clumps=0.35),
)  # fmt: skip
"""The strata of the synthetic data set, in order."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Slide:
    """Staining, focus and illumination of a slide, the same for all images of a group."""

    stains: npt.NDArray[np.float64]
    """(2, 3): absorbance of a unit of hematoxylin and of eosin in red, green and blue."""
    strength: tuple[float, float]
    """Amounts of the two stains relative to the average slide."""
    haze: float
    """Hematoxylin outside nuclei."""
    blur_px: float
    """Blur of the slide: widens the outlines of nuclei and reduces the contrast of their chromatin."""
    light: npt.NDArray[np.float64]
    """(3,): colour of the empty slide, 0 to 255."""

    @classmethod
    def drawn(cls, rng: np.random.Generator) -> "Slide":
        """Draw a slide at random."""
        stains = np.stack([_HEMATOXYLIN, _EOSIN]) + rng.normal(0, 0.05, (2, 3))
        return cls(
            stains=stains.clip(0.02),
            strength=(rng.uniform(0.75, 1.2), rng.uniform(0.65, 1.35)),
            haze=rng.uniform(0.05, 0.45),
            blur_px=rng.uniform(0.6, 2.4),
            light=rng.uniform(222, 248) + rng.normal(0, 4, 3),
        )
