"""Calibration of nucleus probabilities: reliability, Brier score and expected calibration error.

Pixels are counted in bins of their predicted probability. Counts of images add up, so that a test set can be scored
like a single image: `sum(counts, start=Reliability.of_nothing(0, 0))`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nucseg.errors import DataError
from nucseg.metrics.overlap import Mask, check_same_shape
from nucseg.metrics.statistics import Interval, Resampling, Table, summed_interval

PerBin = NDArray[np.float64]

N_BINS = 15
"""Bins of equal width between 0 and 1, as in Guo et al. 2017; each includes its upper end, the first also 0."""

ROUNDING = 1e-6
"""Tolerance beyond 0 and 1 for probabilities: interpolation in float32 rounds."""

_INNER_EDGES = np.linspace(0, 1, N_BINS + 1)[1:-1]


@dataclass(frozen=True, eq=False)
class Reliability:
    """Pixels by their predicted probability of nucleus, in `N_BINS` bins."""

    n_pixels: PerBin
    """(N_BINS,) pixels in each bin."""
    probability_sum: PerBin
    """(N_BINS,) sum of their predicted probabilities."""
    n_nucleus_pixels: PerBin
    """(N_BINS,) pixels that are nucleus in the truth."""
    squared_error: float
    """Sum over all pixels of (probability - truth) squared, truth being 0 or 1."""

    @staticmethod
    def of_nothing(n_pixels: int, n_nucleus_pixels: int) -> Reliability:
        """Count a prediction of probability 0 everywhere on an image with so many pixels and nucleus pixels."""
        first = np.eye(N_BINS)[0]
        return Reliability(n_pixels * first, 0 * first, n_nucleus_pixels * first, float(n_nucleus_pixels))

    def __add__(self, other: Reliability) -> Reliability:
        return Reliability(
            self.n_pixels + other.n_pixels,
            self.probability_sum + other.probability_sum,
            self.n_nucleus_pixels + other.n_nucleus_pixels,
            self.squared_error + other.squared_error,
        )


def count_reliability(probability: NDArray[np.float32], truth: Mask, ignore: Mask | None = None) -> Reliability:
    """Count a (H, W) map of nucleus probability against the (H, W) true mask, without the pixels in `ignore`.

    Raises:
        DataError: the arrays differ in shape, or a probability outside `ignore` is not between 0 and 1.
    """
    check_same_shape(truth, probability, ignore)
    counted = np.ones(truth.shape, dtype=bool) if ignore is None else ~ignore.astype(bool)
    predicted = probability[counted].astype(np.float64)
    true = truth[counted].astype(np.float64)
    if not (np.abs(predicted - 0.5) <= 0.5 + ROUNDING).all():
        raise DataError(
            f"Probabilities must be between 0 and 1, got {predicted.min():.3g} to {predicted.max():.3g}. "
            "Give the softmax of the two logits, not the logits, of a network whose output is finite."
        )
    index = np.searchsorted(_INNER_EDGES, predicted)
    return Reliability(
        n_pixels=_sum_by_bin(index, np.ones_like(predicted)),
        probability_sum=_sum_by_bin(index, predicted),
        n_nucleus_pixels=_sum_by_bin(index, true),
        squared_error=float(((predicted - true) ** 2).sum()),
    )


def brier(counts: Reliability) -> float:
    """Brier score: mean squared difference of probability and truth (Brier 1950); 0 without any pixel."""
    n_pixels = counts.n_pixels.sum()
    return float(counts.squared_error / n_pixels) if n_pixels else 0.0


def expected_calibration_error(counts: Reliability) -> float:
    """Expected calibration error of the nucleus probability (Guo et al. 2017, ICML, equation 3); 0 without any pixel.

    The mean over bins, weighted by their pixels, of the distance between the share of nucleus pixels and the mean
    probability. Guo et al. bin the confidence in the predicted class, for two classes the larger of both probabilities.
    Here the nucleus probability is binned, so that bins below one half show missed nuclei.
    """
    return float(calibration_errors(reliability_row(counts)[None])[0])


def calibration_interval(
    per_image: Sequence[Reliability], groups: Sequence[str] | None = None, draws: Resampling | None = None
) -> Interval:
    """Expected calibration error of all pixels of a set counted together, with its interval; one count per image.

    Raises:
        ConfigError: there is no image, or not one group per image.
    """
    rows = np.array([reliability_row(counts) for counts in per_image])
    return summed_interval(rows, calibration_errors, groups, draws)


def _sum_by_bin(index: NDArray[np.intp], values: PerBin) -> PerBin:
    return np.bincount(index, weights=values, minlength=N_BINS).astype(np.float64)


def reliability_row(counts: Reliability) -> PerBin:
    """The counts that the calibration error needs, (3 * N_BINS,): rows of images add up to the row of their set."""
    return np.concatenate([counts.n_pixels, counts.probability_sum, counts.n_nucleus_pixels])


def calibration_errors(rows: Table) -> Table:
    """Expected calibration error, (R,), of each row, (R, 3 * N_BINS); see `reliability_row`."""
    n_pixels, probability_sum, n_nucleus_pixels = np.split(rows, 3, axis=1)
    gaps = np.abs(probability_sum - n_nucleus_pixels).sum(axis=1)
    # without any pixel the gap is 0 too, and so is the error
    errors: Table = gaps / n_pixels.sum(axis=1).clip(min=1)
    return errors
