import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from nucseg.errors import ConfigError
from nucseg.metrics import PairedDifference, holm, paired_difference, paired_differences

SCORES = np.random.default_rng(0).beta(8, 3, size=40)


def compared(change: NDArray[np.float64]) -> PairedDifference:
    """Compare a run with another that differs by these amounts."""
    ids = [str(number) for number in range(len(change))]
    return paired_difference(dict.fromkeys(ids, 0.0), dict(zip(ids, change.tolist(), strict=True)))


def test_a_paired_difference_agrees_with_scipys_test_and_bootstrap() -> None:
    first = dict(zip(map(str, range(40)), SCORES, strict=True))
    second = {name: value + 0.02 + 0.05 * np.sin(7 * float(name)) for name, value in first.items()}
    shuffled = dict(sorted(second.items(), reverse=True))
    change = np.array([second[name] - first[name] for name in first])
    other = stats.bootstrap((change,), np.mean, n_resamples=10_000, method="percentile", rng=1)

    ours = paired_difference(first, shuffled)

    assert ours.difference.value == pytest.approx(change.mean())
    assert ours.wilcoxon_p == pytest.approx(stats.wilcoxon(change).pvalue)
    assert (ours.difference.low, ours.difference.high) == pytest.approx(
        (other.confidence_interval.low, other.confidence_interval.high), abs=0.003
    )
    assert (ours.n_better, ours.n_worse) == ((change > 0).sum(), (change < 0).sum())


def test_equal_runs_differ_by_nothing() -> None:
    scores = dict(zip(map(str, range(40)), SCORES, strict=True))
    ours = paired_difference(scores, scores)

    assert (ours.difference.value, ours.difference.low, ours.difference.high) == (0, 0, 0)
    assert ours.wilcoxon_p == 1


def test_runs_on_different_images_are_refused_with_what_differs() -> None:
    with pytest.raises(ConfigError, match=r"2 images are in both, 1 only in the first, 2 only in the second .*c, d, e"):
        paired_difference({"a": 0.1, "b": 0.2, "c": 0.3}, {"a": 0.1, "b": 0.2, "d": 0.4, "e": 0.5})


@pytest.mark.parametrize("n", [1, 2, 5, 9])
def test_few_images_with_ties_and_equal_pairs_get_the_exact_p_of_scipy(n: int) -> None:
    change = np.append(np.random.default_rng(n).choice([-2.0, -1.0, 1.0, 2.0, 3.0], size=n), 0.0)

    assert compared(change).wilcoxon_p == pytest.approx(stats.wilcoxon(change).pvalue, abs=1e-12)


def test_thirteen_images_with_ties_get_the_share_of_sign_patterns_as_far_from_even() -> None:
    change = np.array([1.0, 1, -1, 2, 2, 2, -3, 3, 4, 4, -5, 5, 5])
    ranks = stats.rankdata(np.abs(change))
    signs = np.array([[-1 + 2 * (pattern >> bit & 1) for bit in range(13)] for pattern in range(2**13)])
    by_chance = np.abs(signs @ ranks) >= abs(np.sign(change) @ ranks)

    assert 0.01 < by_chance.mean() < 0.2
    assert compared(change).wilcoxon_p == pytest.approx(by_chance.mean())


@pytest.mark.parametrize(
    ("n", "step", "method"), [(14, 0.0, "exact"), (30, 0.1, "asymptotic"), (80, 0.0, "asymptotic")]
)
def test_more_images_get_scipys_exact_p_without_ties_and_its_approximation_otherwise(
    n: int, step: float, method: str
) -> None:
    change = np.random.default_rng(n).normal(0.2, 1, size=n)
    change = np.round(change / step) * step + 0.05 if step else change

    assert compared(change).wilcoxon_p == pytest.approx(stats.wilcoxon(change, method=method).pvalue)


def test_of_a_distance_the_smaller_is_the_better() -> None:
    first, second = {"a": 3.0, "b": 2.0, "c": 5.0, "d": 1.0}, {"a": 2.0, "b": 1.0, "c": 6.0, "d": 1.0}
    score, distance = paired_difference(first, second), paired_difference(first, second, lower_is_better=True)

    assert (score.n_better, score.n_worse) == (1, 2)
    assert (distance.n_better, distance.n_worse) == (2, 1)
    assert distance.difference == score.difference
    assert distance.wilcoxon_p == score.wilcoxon_p


def test_several_scores_are_compared_as_each_alone() -> None:
    rng = np.random.default_rng(0)
    first, second = (
        {name: dict(zip("abcdefgh", rng.random(8), strict=True)) for name in ("dice", "hd95")} for _ in "12"
    )

    differences = paired_differences(first, second, lower_is_better={"hd95"})

    assert differences["dice"] == paired_difference(first["dice"], second["dice"])
    assert differences["hd95"] == paired_difference(first["hd95"], second["hd95"], lower_is_better=True)


def test_holm_adjusts_as_r_does() -> None:
    # R: p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm")
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx((0.03, 0.06, 0.06, 0.02))
    assert (holm([0.2]), holm([]), holm([0.9, 0.8])) == ((0.2,), (), (1.0, 1.0))
