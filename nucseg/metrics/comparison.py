"""Whether two runs differ on the same images: the paired difference with its interval, and a test."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import permutation_test, rankdata, wilcoxon

from nucseg.errors import ConfigError
from nucseg.metrics.statistics import Interval, Resampling, mean_interval

ENUMERATED = 13
"""Up to so many images that differ, all signs of the differences are enumerated (8,192 patterns)."""


@dataclass(frozen=True)
class PairedDifference:
    """What changed from one run to another on the same images."""

    difference: Interval
    """Mean of (second - first) over images."""
    wilcoxon_p: float
    """Two-sided p of Wilcoxon's signed-rank test over images (which takes images to be independent)."""
    n_better: int
    """Images on which the second run scores better."""
    n_worse: int
    """Images on which the second run scores worse."""


def paired_difference(
    first: Mapping[str, float],
    second: Mapping[str, float],
    groups: Mapping[str, str] | None = None,
    draws: Resampling | None = None,
    *,
    lower_is_better: bool = False,
) -> PairedDifference:
    """Compare a score of two runs, given by image id, image by image.

    `lower_is_better` is for distances and errors: it says which images count as better; the difference stays
    (second - first).

    Raises:
        ConfigError: the two runs were not scored on the same images.
    """
    check_same_images(first.keys(), second.keys())
    ids = list(first)
    differences = np.array([second[name] - first[name] for name in ids])
    named = None if groups is None else [groups[name] for name in ids]
    gains = -differences if lower_is_better else differences
    return PairedDifference(
        difference=mean_interval(differences, named, draws),
        wilcoxon_p=_signed_rank_p(differences),
        n_better=int((gains > 0).sum()),
        n_worse=int((gains < 0).sum()),
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


def _signed_rank_p(differences: NDArray[np.float64]) -> float:
    """Two-sided p of Wilcoxon's signed-rank test; equal pairs are left out (Wilcoxon 1945).

    Exact up to `ENUMERATED` changed images, ties or not. Of more, scipy's choice: exact up to 50 without ties,
    otherwise the normal approximation.
    """
    changed = differences[differences != 0]
    if changed.size < 2:
        return 1.0
    if changed.size > ENUMERATED:
        return float(wilcoxon(changed).pvalue)
    # the same enumeration as that of `wilcoxon` for ties, which ranks anew for each pattern and takes seconds
    ranks = np.sign(changed) * rankdata(np.abs(changed))
    return float(permutation_test((ranks,), np.sum, permutation_type="samples", n_resamples=np.inf).pvalue)
