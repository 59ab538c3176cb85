"""Compare two runs on the same images: the paired difference with its interval, and a significance test."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import permutation_test, rankdata, wilcoxon

from nucseg.errors import ConfigError
from nucseg.metrics.statistics import Interval, Resampling, mean_intervals

ENUMERATED = 13
"""Up to this number of images that differ, all signs of the differences are enumerated (8,192 patterns)."""


@dataclass(frozen=True)
class PairedDifference:
    """The difference between two runs on the same images."""

    difference: Interval
    """Mean of (second - first) over images."""
    wilcoxon_p: float
    """Two-sided p value of Wilcoxon's signed-rank test over images (which assumes that images are independent)."""
    n_better: int
    """Images on which the second run scores better; `n_worse` counts those on which it scores worse."""
    n_worse: int


def paired_difference(
    first: Mapping[str, float],
    second: Mapping[str, float],
    groups: Mapping[str, str] | None = None,
    draws: Resampling | None = None,
    *,
    lower_is_better: bool = False,
) -> PairedDifference:
    """Compare a score of two runs, given by image id, image by image.

    `lower_is_better` is for distances and errors. It determines which images count as better; the difference is
    (second - first) in any case.

    Raises:
        ConfigError: the two runs were not scored on the same images.
    """
    better = {"score"} if lower_is_better else set()
    return paired_differences({"score": first}, {"score": second}, groups, draws, lower_is_better=better)["score"]


def paired_differences(
    first: Mapping[str, Mapping[str, float]],
    second: Mapping[str, Mapping[str, float]],
    groups: Mapping[str, str] | None = None,
    draws: Resampling | None = None,
    *,
    lower_is_better: Collection[str] = (),
) -> dict[str, PairedDifference]:
    """Compare several scores, name -> image id -> value, each as `paired_difference` does, with the same resamples.

    `lower_is_better` lists the scores where a lower value is better.

    Raises:
        ConfigError: the two runs were not scored on the same images.
    """
    ids = list(next(iter(first.values())))
    for name in first:
        check_same_images(first[name].keys(), second[name].keys())
    table = np.array([[second[name][image_id] - first[name][image_id] for name in first] for image_id in ids])
    intervals = mean_intervals(table, None if groups is None else [groups[image_id] for image_id in ids], draws)
    return {
        name: _paired(column, interval, -1 if name in lower_is_better else 1)
        for name, column, interval in zip(first, table.T, intervals, strict=True)
    }


def _paired(differences: NDArray[np.float64], interval: Interval, sign: int) -> PairedDifference:
    return PairedDifference(
        difference=interval,
        wilcoxon_p=_signed_rank_p(differences),
        n_better=int((sign * differences > 0).sum()),
        n_worse=int((sign * differences < 0).sum()),
    )


def check_same_images(
    first: Collection[str], second: Collection[str], names: tuple[str, str] = ("the first", "the second")
) -> None:
    """Check that two runs, called `names` in the message, were scored on the same image ids.

    Raises:
        ConfigError: they were not; the message counts the ids that only one of them has.
    """
    only_first, only_second = set(first) - set(second), set(second) - set(first)
    if not only_first and not only_second:
        return
    examples = ", ".join(sorted(only_first | only_second)[:3])
    raise ConfigError(
        f"Only runs scored on the same images can be compared: {len(set(first) & set(second))} images are in "
        f"both, {len(only_first)} only in {names[0]}, {len(only_second)} only in {names[1]} (such as {examples}). "
        "Compare runs of the same split and fold, or report on each of them alone."
    )


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Adjust the p values of several tests to control the family-wise error rate.

    The step-down procedure of Holm (1979, Scandinavian Journal of Statistics 6, 65-70); the order is kept.
    """
    ranked = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted, highest = [0.0] * len(p_values), 0.0
    for n_before, position in enumerate(ranked):
        highest = max(highest, min(1.0, (len(p_values) - n_before) * p_values[position]))
        adjusted[position] = highest
    return tuple(adjusted)


def _signed_rank_p(differences: NDArray[np.float64]) -> float:
    """Two-sided p value of Wilcoxon's signed-rank test; equal pairs are left out (Wilcoxon 1945).

    Exact up to `ENUMERATED` changed images, with or without ties. Beyond that scipy's choice: exact up to 50 without
    ties, otherwise the normal approximation.
    """
    changed = differences[differences != 0]
    if changed.size < 2:
        return 1.0
    if changed.size > ENUMERATED:
        return float(wilcoxon(changed).pvalue)
    # the enumeration that `wilcoxon` does for ties, which takes seconds there because it ranks each pattern again
    ranks = np.sign(changed) * rankdata(np.abs(changed))
    return float(permutation_test((ranks,), np.sum, permutation_type="samples", n_resamples=np.inf).pvalue)
