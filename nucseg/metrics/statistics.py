"""How sure a mean over images is, and whether two runs differ: bootstrap intervals and paired tests.

Images of one group (patient, slide, source image) resemble each other. Where there are groups, it is groups
that are drawn with replacement, each with all of its images; otherwise the interval would be too narrow.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import wilcoxon

from nucseg.errors import ConfigError
from nucseg.metrics.overlap import PixelCounts, total

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
class PairedDifference:
    """What changed from one run to another on the same images."""

    difference: Interval
    """Mean of (second - first) over images."""
    wilcoxon_p: float
    """Two-sided p of Wilcoxon's signed-rank test over images (which takes images to be independent)."""
    n_better: int
    """Images on which the second run scores higher."""
    n_worse: int
    """Images on which the second run scores lower."""


def mean_interval(values: ArrayLike, groups: Sequence[str] | None = None, draws: Resampling | None = None) -> Interval:
    """Average one value an image, (N,), with the interval; `groups` names the group of each image.

    A resample's mean is over its images, so that a large group weighs more, as it does in the plain mean.
    """
    column = np.asarray(values, dtype=np.float64)
    columns = np.stack([column, np.ones_like(column)], axis=1)
    sums, n_groups = resampled_sums(columns, groups, draws)
    return _interval(float(column.mean()), sums[:, 0] / sums[:, 1], len(column), n_groups)


def pooled_interval(
    counts: Sequence[PixelCounts],
    score: Callable[[PixelCounts], float],
    groups: Sequence[str] | None = None,
    draws: Resampling | None = None,
) -> Interval:
    """Score all pixels of a set counted together, with the interval; one `counts` an image."""
    columns = np.array([(c.tp, c.fp, c.fn, c.tn) for c in counts], dtype=np.float64)
    sums, n_groups = resampled_sums(columns, groups, draws)
    scores = np.array([score(PixelCounts(*row)) for row in sums.astype(np.int64).tolist()])
    return _interval(score(total(counts)), scores, len(columns), n_groups)


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


def paired_difference(
    first: Mapping[str, float],
    second: Mapping[str, float],
    groups: Mapping[str, str] | None = None,
    draws: Resampling | None = None,
) -> PairedDifference:
    """Compare a score of two runs, given by image id, image by image.

    Raises:
        ConfigError: the two runs were not scored on the same images.
    """
    check_same_images(first.keys(), second.keys())
    ids = list(first)
    differences = np.array([second[name] - first[name] for name in ids])
    named = None if groups is None else [groups[name] for name in ids]
    # the test leaves out equal pairs; left in, they make scipy enumerate permutations for seconds
    changed = differences[differences != 0]
    p = float(wilcoxon(changed).pvalue) if changed.size else 1.0
    return PairedDifference(
        difference=mean_interval(differences, named, draws),
        wilcoxon_p=p,
        n_better=int((differences > 0).sum()),
        n_worse=int((differences < 0).sum()),
    )


def check_same_images(
    first: Collection[str], second: Collection[str], names: tuple[str, str] = ("the first", "the second")
) -> None:
    """Refuse to compare scores of different images, given by id; `names` says whose they are.

    Raises:
        ConfigError: with how many ids are on one side alone.
    """
    alone, other_alone = set(first) - set(second), set(second) - set(first)
    if not alone and not other_alone:
        return
    shown = ", ".join(sorted(alone | other_alone)[:3])
    raise ConfigError(
        f"Only runs scored on the same images can be compared: {len(set(first) & set(second))} images are in "
        f"both, {len(alone)} only in {names[0]}, {len(other_alone)} only in {names[1]} (such as {shown}). "
        "Compare runs of one split and fold, or report on each of them alone."
    )


def _sum_by_group(columns: Table, groups: Sequence[str]) -> Table:
    if len(groups) != len(columns):
        raise ConfigError(f"Each of the {len(columns)} images needs its group, got {len(groups)} groups.")
    names, index = np.unique(np.asarray(groups), return_inverse=True)
    sums = np.zeros((len(names), columns.shape[1]))
    np.add.at(sums, index, columns)
    return sums


def _interval(value: float, resampled: Table, n_images: int, n_groups: int) -> Interval:
    if n_groups < 2:
        return Interval(value, None, None, n_images, n_groups)
    low, high = np.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(value, float(low), float(high), n_images, n_groups)
