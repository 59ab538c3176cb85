"""Distance between the outlines of two foreground masks: 95 % Hausdorff distance and boundary F1.

Both use the same boundary pixels: foreground pixels with background above, below, left or right of them. Outside the
array is background, as in monai and in Boundary IoU (Cheng et al. 2021). Ignored pixels are neither nucleus nor
background: they contain no boundary, and cutting a nucleus does not create one, because nothing says that the nucleus
ends there. monai has no ignored pixels, so boundaries are computed here and monai measures their distances; without
ignored pixels the scores equal those of its own functions.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion

from nucseg.metrics.overlap import Mask, check_same_shape

Distances = NDArray[np.float32]

PERCENTILE = 95
"""Percentile of the distances that `hausdorff95` uses instead of the maximum."""


def hausdorff95(
    truth: Mask, prediction: Mask, ignore: Mask | None = None, *, diagonal_px: float | None = None
) -> float:
    """95 % Hausdorff distance of the foregrounds of two (H, W) masks, in pixels.

    The distance of a boundary pixel is the Euclidean distance to the nearest boundary pixel of the other mask. The
    score is the larger of two 95th percentiles, with linear interpolation: of the distances from truth to prediction
    and of those from prediction to truth (monai's `compute_hausdorff_distance`).

    Pixels in `ignore` are background in both masks, but create no boundary: a nucleus that reaches into the ignored
    area is scored by its part outside of it. 0 if both masks are empty, `diagonal_px` if one is: by default the
    diagonal of the arrays; for padded arrays give the diagonal of the image.

    Raises:
        DataError: the masks differ in shape.
    """
    true, found = _boundaries(truth, prediction, ignore)
    if not true.any() or not found.any():
        farthest = math.hypot(*truth.shape) if diagonal_px is None else diagonal_px
        return farthest if true.any() or found.any() else 0.0
    return float(max(np.percentile(distances, PERCENTILE) for distances in _distances(true, found)))


def boundary_f1(truth: Mask, prediction: Mask, ignore: Mask | None = None, *, tolerance_px: float = 2.0) -> float:
    """F1 of the boundary pixels of two (H, W) foreground masks (Csurka et al. 2013, BMVC, section 3.2).

    Recall is the share of true boundary pixels with a predicted one within a Euclidean distance of `tolerance_px`,
    precision the share of predicted ones with a true one. 1 if both masks are empty, 0 if one is; `ignore` as in
    `hausdorff95`.

    Raises:
        DataError: the masks differ in shape.
    """
    true, found = _boundaries(truth, prediction, ignore)
    if not true.any() or not found.any():
        return float(not true.any() and not found.any())
    recall, precision = (float(np.mean(distances <= tolerance_px)) for distances in _distances(true, found))
    # recall and precision are 0 only together
    return 2 * precision * recall / (precision + recall) if recall else 0.0


def _boundaries(truth: Mask, prediction: Mask, ignore: Mask | None) -> tuple[Mask, Mask]:
    check_same_shape(truth, prediction, ignore)
    ignored = np.zeros(truth.shape, dtype=bool) if ignore is None else ignore.astype(bool)
    return _boundary(truth.astype(bool), ignored), _boundary(prediction.astype(bool), ignored)


def _boundary(mask: Mask, ignored: Mask) -> Mask:
    """Mark the boundary pixels of the nuclei, (H, W); empty only if there is no nucleus."""
    counted = mask & ~ignored
    boundary = counted & ~binary_erosion(mask | ignored)
    # nuclei with only ignored pixels around them have no boundary: use all of their pixels instead
    return boundary if boundary.any() else counted


def _distances(true: Mask, found: Mask) -> tuple[Distances, Distances]:
    from monai.metrics.utils import get_surface_distance  # slow to import

    return get_surface_distance(true, found), get_surface_distance(found, true)
