"""Stain jitter: scale and shift the haematoxylin, eosin and residual of an H&E image separately.

After Tellez et al. (IEEE TMI 2018, "Whole-slide mitosis detection in H&E breast histology using PHH3 as a reference"),
section III-D: every stain channel s becomes scale * s + shift in the stain space of Ruifrok and Johnston (2001).
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]

_BLOCK_PX = 1 << 18
_DARKEST = 0.25  # replaces grey level 0, whose optical density is infinite; rounds to 0 again


def jitter_stains(image: Image, scale: Sequence[float], shift: Sequence[float]) -> Image:
    """Scale and shift the three stains of an image (H, W, 3) uint8; scale 1 and shift 0 return the same bytes.

    Stains are those of scikit-image's `rgb_from_hed` (haematoxylin, eosin, and DAB for the residual), in decadic
    optical density. Unlike in `rgb2hed`, negative amounts are kept, so that no colour is lost.
    """
    from skimage.color import hed_from_rgb, rgb_from_hed

    # unmix, scale and mix are one linear map of optical densities; the shift is mixed too
    mixed = (hed_from_rgb * np.asarray(scale)) @ rgb_from_hed
    offset = np.asarray(shift) @ rgb_from_hed
    densities = -np.log10(np.maximum(np.arange(256), _DARKEST) / 255)
    changed = np.empty_like(image)
    n_rows = max(_BLOCK_PX // image.shape[1], 1)
    for first in range(0, len(image), n_rows):  # in blocks: floats take many times the memory of the image
        rows = slice(first, first + n_rows)
        changed[rows] = _as_grey_levels(densities[image[rows]] @ mixed + offset)
    return changed


def _as_grey_levels(density: npt.NDArray[np.float64]) -> Image:
    light: npt.NDArray[np.float64] = np.rint(255 * 10 ** -density.clip(0, 6))
    return light.astype(np.uint8)
