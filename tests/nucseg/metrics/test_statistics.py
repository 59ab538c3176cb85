import numpy as np
import pytest
from scipy import stats

from nucseg.errors import ConfigError
from nucseg.metrics import (
    PixelCounts,
    Resampling,
    dice,
    mean_interval,
    paired_difference,
    pooled_interval,
)

SCORES = np.random.default_rng(0).beta(8, 3, size=40)
GROUPS = [f"slide-{number}" for number in np.repeat(range(10), [1, 2, 3, 4, 5, 5, 5, 5, 5, 5])]


def test_the_interval_agrees_with_scipys_bootstrap() -> None:
    ours = mean_interval(SCORES)
    other = stats.bootstrap((SCORES,), np.mean, n_resamples=10_000, method="percentile", rng=1)

    assert ours.value == pytest.approx(SCORES.mean())
    assert (ours.low, ours.high) == pytest.approx(
        (other.confidence_interval.low, other.confidence_interval.high), abs=0.003
    )


def test_the_interval_of_many_values_is_that_of_the_central_limit() -> None:
    values = np.random.default_rng(1).normal(0.7, 0.1, size=800)
    ours = mean_interval(values)
    half = 1.96 * values.std() / np.sqrt(len(values))

    assert (ours.low, ours.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=3e-4)


def test_groups_are_drawn_whole_as_scipy_draws_them() -> None:
    names, index = np.unique(GROUPS, return_inverse=True)
    sums, sizes = np.bincount(index, SCORES), np.bincount(index)
    other = stats.bootstrap(
        (sums, sizes),
        lambda s, n, axis=-1: s.sum(axis=axis) / n.sum(axis=axis),
        paired=True,
        vectorized=True,
        n_resamples=10_000,
        method="percentile",
        rng=1,
    )
    ours = mean_interval(SCORES, GROUPS)

    assert (ours.n_images, ours.n_groups) == (40, len(names))
    assert (ours.low, ours.high) == pytest.approx(
        (other.confidence_interval.low, other.confidence_interval.high), abs=0.004
    )


def test_images_that_resemble_their_group_widen_the_interval() -> None:
    slides = np.repeat(np.random.default_rng(2).normal(0.7, 0.1, size=8), 5)
    alone, grouped = mean_interval(slides), mean_interval(slides, [str(i // 5) for i in range(40)])

    assert alone.low is not None
    assert grouped.low is not None
    assert grouped.value - grouped.low > 1.8 * (alone.value - alone.low)


def test_equal_seeds_give_equal_intervals_and_others_do_not() -> None:
    assert mean_interval(SCORES) == mean_interval(SCORES)
    assert mean_interval(SCORES) != mean_interval(SCORES, draws=Resampling(seed=1))


def test_resampling_in_chunks_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = mean_interval(SCORES)
    monkeypatch.setattr("nucseg.metrics.statistics.CHUNK", 7 * len(SCORES))

    assert mean_interval(SCORES) == whole


def test_a_single_group_has_no_interval() -> None:
    ours = mean_interval([0.5, 0.7], ["one", "one"])

    assert (ours.value, ours.low, ours.high, ours.n_groups) == (pytest.approx(0.6), None, None, 1)


def test_no_image_at_all_is_an_error_and_not_a_number() -> None:
    with pytest.raises(ConfigError, match="no image"):
        mean_interval([])


def test_the_pooled_interval_surrounds_the_pooled_score_and_narrows_with_more_images() -> None:
    rng = np.random.default_rng(3)
    counts = [PixelCounts(*rng.integers(50, 200, size=4).tolist()) for _ in range(60)]
    few, many = pooled_interval(counts[:15], dice), pooled_interval(counts, dice)
    tp, fp, fn = (sum(getattr(one, name) for one in counts) for name in ("tp", "fp", "fn"))

    assert many.value == pytest.approx(2 * tp / (2 * tp + fp + fn))
    assert few.low is not None
    assert few.high is not None
    assert many.low is not None
    assert many.high is not None
    assert many.low < many.value < many.high
    assert many.high - many.low < few.high - few.low


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


def test_equal_pairs_leave_the_test_as_scipy_has_it() -> None:
    change = np.array([0.0, 0.03, -0.01, 0.0, 0.05, 0.02, -0.04])
    first = dict.fromkeys("abcdefg", 0.5)
    second = dict(zip("abcdefg", 0.5 + change, strict=True))

    ours = paired_difference(first, second)

    assert ours.wilcoxon_p == pytest.approx(stats.wilcoxon(change).pvalue)
    assert (ours.n_better, ours.n_worse) == (3, 2)


def test_equal_runs_differ_by_nothing() -> None:
    scores = dict(zip(map(str, range(40)), SCORES, strict=True))
    ours = paired_difference(scores, scores)

    assert (ours.difference.value, ours.difference.low, ours.difference.high) == (0, 0, 0)
    assert ours.wilcoxon_p == 1


def test_runs_on_different_images_are_refused_with_what_differs() -> None:
    with pytest.raises(ConfigError, match=r"2 images are in both, 1 only in the first, 2 only in the second .*c, d, e"):
        paired_difference({"a": 0.1, "b": 0.2, "c": 0.3}, {"a": 0.1, "b": 0.2, "d": 0.4, "e": 0.5})
