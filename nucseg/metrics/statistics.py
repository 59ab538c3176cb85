"""How sure a score over images is, and how runs spread: bootstrap intervals.

Images of one group (patient, slide, source image) resemble each other. Where there are groups, it is groups
that are drawn with replacement, each with all of its images; otherwise the interval would be too narrow.
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
"""Most draws held in memory at a time."""


@dataclass(frozen=True)
class Interval:
    """A figure over a set of images with its 95 % percentile bootstrap interval."""

    value: float
    """The figure itself: a mean over images, or a pooled score."""
    low: float | None
    """Lower end; None where there are fewer than two groups to draw from."""
    high: float | None
    """Upper end; None where there are fewer than two groups to draw from."""
    n_images: int
    """Number of images."""
    n_groups: int
    """Number of groups that were drawn from; equals `n_images` without groups."""


@dataclass(frozen=True)
class Resampling:
    """How the bootstrap draws."""

    n_resamples: int = 10_000
    """Number of resampled sets."""
    seed: int = 0
    """Seed of the draws: equal seeds give equal intervals."""


@dataclass(frozen=True)
class Spread:
    """How a figure differs between runs of one configuration: folds or seeds."""

    mean: float
    sd: float | None
    """Standard deviation of the runs (n - 1 in the denominator); None of a single run."""
    n: int
    low: float
    """The lowest of them."""
    high: float
    """The highest of them."""


def mean_interval(values: ArrayLike, groups: Sequence[str] | None = None, draws: Resampling | None = None) -> Interval:
    """Average one value an image, (N,), with the interval; `groups` names the group of each image.

    A resample's mean is over its images, so that a large group weighs more, as it does in the plain mean.
    """
    column = np.asarray(values, dtype=np.float64)
    columns = np.stack([column, np.ones_like(column)], axis=1)
    sums, n_groups = resampled_sums(columns, groups, draws)
    return percentile_interval(float(column.mean()), sums[:, 0] / sums[:, 1], len(column), n_groups)


def mean_intervals(
    values: ArrayLike, groups: Sequence[str] | None = None, draws: Resampling | None = None
) -> tuple[Interval, ...]:
    """Average several values an image, (N, M), each as `mean_interval` does, by one drawing for all of them."""
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
    """Score all pixels of a set counted together, with the interval; one `counts` an image."""
    columns = np.array([(c.tp, c.fp, c.fn, c.tn) for c in counts], dtype=np.float64)

    def score_rows(sums: Table) -> Table:
        # `score` takes the counts of one image; calling it for 10,000 resamples takes 20 ms
        return np.array([score(PixelCounts(*row)) for row in sums.astype(np.int64).tolist()])

    return summed_interval(columns, score_rows, groups, draws)


def summed_interval(
    columns: Table,
    score: Callable[[Table], Table],
    groups: Sequence[str] | None = None,
    draws: Resampling | None = None,
) -> Interval:
    """Score the sum of the columns, (N, K), over all images, with the interval.

    `score` makes the scores, (R,), of R sums at a time, (R, K); NaN where there is nothing to score, and such a
    resample is left out.

    Raises:
        ConfigError: there is no row, or not one group a row.
    """
    sums, n_groups = resampled_sums(columns, groups, draws)
    value = float(score(columns.sum(axis=0, keepdims=True))[0])
    return percentile_interval(value, score(sums), len(columns), n_groups)


def resampled_sums(
    columns: Table, groups: Sequence[str] | None = None, draws: Resampling | None = None
) -> tuple[Table, int]:
    """Sum the columns, (N, K), over resampled groups: (n_resamples, K) sums, and the number of groups.

    Raises:
        ConfigError: there is no row, or not one group a row.
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
        # drawing G groups with replacement is drawing how often each one comes
        times = rng.multinomial(n_groups, np.full(n_groups, 1 / n_groups), size=stop - start)
        sums[start:stop] = times @ by_group
    return sums, n_groups


def percentile_interval(value: float, resampled: Table, n_images: int, n_groups: int) -> Interval:
    """Put the 95 % percentile interval of resampled scores, (R,), around a score.

    A score that is NaN, of a resample without anything to score, is left out.
    """
    kept = resampled[~np.isnan(resampled)]
    if n_groups < 2 or not kept.size:
        return Interval(value, None, None, n_images, n_groups)
    low, high = np.quantile(kept, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(value, float(low), float(high), n_images, n_groups)


def spread(values: ArrayLike) -> Spread:
    """Describe one figure of several folds or seeds of a configuration, (n,).

    It says how much runs differ, not how sure their mean is: folds share most of their training images.

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
