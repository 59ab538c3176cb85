"""Overlap of two foreground masks: the four pixel counts, and the scores computed from them.

Every score is a pure function of `PixelCounts`. The score of an image uses the counts of that image; a pooled score
uses the sum of the counts of a whole set: `dice(total(counts))`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucseg.errors import DataError

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class PixelCounts:
    """The 2 x 2 confusion of nucleus against background, in pixels."""

    tp: int
    """Nucleus in both."""
    fp: int
    """Nucleus only in the prediction."""
    fn: int
    """Nucleus only in the truth."""
    tn: int
    """Background in both."""

    @property
    def background(self) -> PixelCounts:
        """The same pixels with background as the positive class."""
        return PixelCounts(tp=self.tn, fp=self.fn, fn=self.fp, tn=self.tp)

    def __add__(self, other: PixelCounts) -> PixelCounts:
        return PixelCounts(self.tp + other.tp, self.fp + other.fp, self.fn + other.fn, self.tn + other.tn)


def count_pixels(truth: Mask, prediction: Mask, ignore: Mask | None = None) -> PixelCounts:
    """Count agreement and disagreement of two (H, W) foreground masks, without the pixels in `ignore`.

    Raises:
        DataError: the masks differ in shape.
    """
    check_same_shape(truth, prediction, ignore)
    counted = np.ones(truth.shape, dtype=bool) if ignore is None else ~ignore
    true, found = truth[counted].astype(bool), prediction[counted].astype(bool)
    tp = int(np.count_nonzero(true & found))
    fp = int(np.count_nonzero(found)) - tp
    fn = int(np.count_nonzero(true)) - tp
    return PixelCounts(tp=tp, fp=fp, fn=fn, tn=true.size - tp - fp - fn)


def total(counts: Iterable[PixelCounts]) -> PixelCounts:
    """All pixels of a set counted together, for the pooled scores."""
    return sum(counts, start=PixelCounts(0, 0, 0, 0))


def dice(counts: PixelCounts) -> float:
    """Dice score of the foreground, 2 |A and B| / (|A| + |B|): 1 if both masks are empty, 0 if one is."""
    return _ratio(2 * counts.tp, 2 * counts.tp + counts.fp + counts.fn)


def iou(counts: PixelCounts) -> float:
    """Jaccard index of the foreground, |A and B| / |A or B|: 1 if both masks are empty, 0 if one is."""
    return _ratio(counts.tp, counts.tp + counts.fp + counts.fn)


def miou(counts: PixelCounts) -> float:
    """Mean of the Jaccard indices of foreground and background."""
    return (iou(counts) + iou(counts.background)) / 2


def dice_weighted(counts: PixelCounts) -> float:
    """Dice of nucleus and background, each weighted by its share of the true mask.

    scikit-learn's `f1_score(average="weighted")`, which the reference implementation of the SAM-guided
    eU-Net3+ reports. Not a main score: where nuclei are sparse, a prediction of pure background scores high.
    """
    return _weighted(dice, counts)


def iou_weighted(counts: PixelCounts) -> float:
    """Jaccard index of nucleus and background, weighted as in `dice_weighted`."""
    return _weighted(iou, counts)


def check_same_shape(truth: Mask, prediction: NDArray[Any], ignore: Mask | None) -> None:
    """Check that arrays have the same shape.

    Raises:
        DataError: they do not; the message lists the shapes.
    """
    shapes = [mask.shape for mask in (truth, prediction, ignore) if mask is not None]
    if len(set(shapes)) > 1:
        raise DataError(
            f"Cannot compare masks of different shapes: truth {truth.shape}, prediction {prediction.shape}, "
            f"ignore {None if ignore is None else ignore.shape}. Bring them to one pixel grid first."
        )


def _weighted(score: Callable[[PixelCounts], float], counts: PixelCounts) -> float:
    share = _ratio(counts.tp + counts.fn, counts.tp + counts.fp + counts.fn + counts.tn)
    return share * score(counts) + (1 - share) * score(counts.background)


def _ratio(part: int, whole: int) -> float:
    """Divide; 0 / 0 is 1, because two empty masks agree."""
    return part / whole if whole else 1.0
