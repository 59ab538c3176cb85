"""Uncertainty of a score over images, by bootstrap intervals, and spread between runs.

Images of one group (patient, slide, source image) resemble each other. If groups are given, whole groups are drawn
with replacement, each with all of its images; otherwise the interval would be too narrow.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nucseg.errors import ConfigError
from nucseg.metrics.overlap import PixelCounts

Table = NDArray[np.float64]

LEVEL = 0.95
"""Coverage of every interval."""
CHUNK = 2_000_000
"""Largest number of draws in memory at a time."""


@dataclass(frozen=True)
class Interval:
    """A score over a set of images with its 95 % percentile bootstrap interval."""

    value: float
    """The score itself: a mean over images, or a pooled score."""
    low: float | None
    """Lower end; None, like the upper one, if there are fewer than two groups to draw from."""
    high: float | None
    n_images: int
    n_groups: int
    """Number of groups that were drawn from; equals `n_images` without groups."""


@dataclass(frozen=True)
class Resampling:
    """Parameters of the bootstrap."""

    n_resamples: int = 10_000
    seed: int = 0
    """Seed of the draws: equal seeds give equal intervals."""


@dataclass(frozen=True)
class Spread:
    """Variation of a score between runs of one configuration: folds or seeds."""

    mean: float
    sd: float | None
    """Standard deviation of the runs (n - 1 in the denominator); None for a single run."""
    n: int
    low: float
    high: float


def mean_interval(values: ArrayLike, groups: Sequence[str] | None = None, draws: Resampling | None = None) -> Interval:
    """Average one value per image, (N,), with its interval; `groups` names the group of each image.

    The mean of a resample is taken over its images, so that large groups have more weight, as in the plain mean.
    """
    (interval,) = mean_intervals(np.asarray(values, dtype=np.float64)[:, None], groups, draws)
    return interval


def mean_intervals(
    values: ArrayLike, groups: Sequence[str] | None = None, draws: Resampling | None = None
) -> tuple[Interval, ...]:
    """Average several values per image, (N, M), each as `mean_interval` does, with the same resamples for all."""
    table = np.asarray(values, dtype=np.float64)
    sums, n_groups = resampled_sums(np.column_stack([table, np.ones(len(table))]), groups, draws)
    means = sums[:, :-1] / sums[:, -1:]
    return tuple(
        percentile_interval(float(column.mean()), resampled, len(table), n_groups)
        for column, resampled in zip(table.T, means.T, strict=True)
    )


def pooled_interval(
    counts: Sequence[PixelCounts],
    score: Callable[[PixelCounts], float],
    groups: Sequence[str] | None = None,
    draws: Resampling | None = None,
) -> Interval:
    """Score all pixels of a set counted together, with the interval; one `counts` per image."""
    columns = np.array([(c.tp, c.fp, c.fn, c.tn) for c in counts], dtype=np.float64)

    def score_rows(sums: Table) -> Table:
        # `score` works on single counts; 10,000 calls, one per resample, take 20 ms
        return np.array([score(PixelCounts(*row)) for row in sums.astype(np.int64).tolist()])

    return summed_interval(columns, score_rows, groups, draws)


def summed_interval(
    columns: Table,
    score: Callable[[Table], Table],
    groups: Sequence[str] | None = None,
    draws: Resampling | None = None,
) -> Interval:
    """Score the sum of the columns, (N, K), over all images, with the interval.

    `score` maps sums, (R, K), to scores, (R,). Where there is nothing to score it returns NaN, and the resample is
    left out.

    Raises:
        ConfigError: there is no row, or not one group per row.
    """
    sums, n_groups = resampled_sums(columns, groups, draws)
    value = float(score(columns.sum(axis=0, keepdims=True))[0])
    return percentile_interval(value, score(sums), len(columns), n_groups)


def resampled_sums(
    columns: Table, groups: Sequence[str] | None = None, draws: Resampling | None = None
) -> tuple[Table, int]:
    """Sum the columns, (N, K), over resampled groups: (n_resamples, K) sums, and the number of groups.

    Raises:
        ConfigError: there is no row, or not one group per row.
    """
    draws = draws or Resampling()
    if not len(columns):
        raise ConfigError("There is no image to average over; at least one is needed.")
    by_group = columns if groups is None else _sum_by_group(columns, groups)
    n_groups = len(by_group)
    rng = np.random.default_rng(draws.seed)
    sums = np.empty((draws.n_resamples, columns.shape[1]))
    step = max(CHUNK // n_groups, 1)
    for start in range(0, draws.n_resamples, step):
        stop = min(start + step, draws.n_resamples)
        # drawing G groups with replacement is equivalent to drawing how often each occurs
        times = rng.multinomial(n_groups, np.full(n_groups, 1 / n_groups), size=stop - start)
        sums[start:stop] = times @ by_group
    return sums, n_groups


def percentile_interval(value: float, resampled: Table, n_images: int, n_groups: int) -> Interval:
    """Combine a score with the 95 % percentile interval of its resampled scores, (R,), without those that are NaN."""
    kept = resampled[~np.isnan(resampled)]
    if n_groups < 2 or not kept.size:
        return Interval(value, None, None, n_images, n_groups)
    low, high = np.quantile(kept, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(value, float(low), float(high), n_images, n_groups)


def spread(values: ArrayLike) -> Spread:
    """Describe one score of several folds or seeds of a configuration, (n,).

    It measures how much runs differ, not the uncertainty of their mean: folds share most of their training images.

    Raises:
        ConfigError: there is no value.
    """
    column = np.asarray(values, dtype=np.float64)
    if not column.size:
        raise ConfigError("There is no run to describe the spread of; at least one is needed.")
    return Spread(
        mean=float(column.mean()),
        sd=float(column.std(ddof=1)) if column.size > 1 else None,
        n=column.size,
        low=float(column.min()),
        high=float(column.max()),
    )


def _sum_by_group(columns: Table, groups: Sequence[str]) -> Table:
    if len(groups) != len(columns):
        raise ConfigError(f"Each of the {len(columns)} images needs its group, got {len(groups)} groups.")
    names, index = np.unique(np.asarray(groups), return_inverse=True)
    sums = np.zeros((len(names), columns.shape[1]))
    np.add.at(sums, index, columns)
    return sums
