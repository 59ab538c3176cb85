import numpy as np
import pytest
from scipy import stats

from nucseg.errors import ConfigError
from nucseg.metrics import (
    PixelCounts,
    Resampling,
    dice,
    iou,
    mean_interval,
    mean_intervals,
    pooled_interval,
    spread,
    summed_interval,
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
    ours = mean_interval([0.5, 0.7], ["slide", "slide"])

    assert (ours.value, ours.low, ours.high, ours.n_groups) == (pytest.approx(0.6), None, None, 1)


def test_no_image_at_all_is_an_error_and_not_a_number() -> None:
    with pytest.raises(ConfigError, match="no image"):
        mean_interval([])


def test_the_pooled_interval_surrounds_the_pooled_score_and_narrows_with_more_images() -> None:
    rng = np.random.default_rng(3)
    counts = [PixelCounts(*rng.integers(50, 200, size=4).tolist()) for _ in range(60)]
    few, many = pooled_interval(counts[:15], dice), pooled_interval(counts, dice)
    tp, fp, fn = (sum(getattr(image, name) for image in counts) for name in ("tp", "fp", "fn"))

    assert many.value == pytest.approx(2 * tp / (2 * tp + fp + fn))
    assert few.low is not None
    assert few.high is not None
    assert many.low is not None
    assert many.high is not None
    assert many.low < many.value < many.high
    assert many.high - many.low < few.high - few.low


@pytest.mark.parametrize("score", [dice, iou])
def test_the_pooled_interval_agrees_with_scipys_bootstrap_of_summed_counts(score) -> None:  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(4)
    counts = [PixelCounts(*rng.integers(5, 200, size=4).tolist()) for _ in range(30)]
    tp, fp, fn = (np.array([getattr(image, name) for image in counts]) for name in ("tp", "fp", "fn"))
    weight = 2 if score is dice else 1
    other = stats.bootstrap(
        (tp, fp + fn),
        lambda hit, missed, axis=-1: weight * hit.sum(axis) / (weight * hit.sum(axis) + missed.sum(axis)),
        paired=True,
        vectorized=True,
        n_resamples=10_000,
        method="percentile",
        rng=1,
    )
    ours = pooled_interval(counts, score)

    assert (ours.low, ours.high) == pytest.approx(
        (other.confidence_interval.low, other.confidence_interval.high), abs=0.004
    )


def test_a_score_of_sums_is_the_mean_where_the_sums_are_of_values_and_of_ones() -> None:
    columns = np.stack([SCORES, np.ones_like(SCORES)], axis=1)
    summed = summed_interval(columns, lambda sums: sums[:, 0] / sums[:, 1], GROUPS)
    mean = mean_interval(SCORES, GROUPS)

    assert (summed.value, summed.low, summed.high) == pytest.approx((mean.value, mean.low, mean.high))
    assert (summed.n_images, summed.n_groups) == (mean.n_images, mean.n_groups)


def test_resamples_with_nothing_to_score_are_left_out_of_the_interval() -> None:
    # one image in three has something to score: of 3 drawn, none in (2/3)**3 of the resamples
    columns = np.array([[3.0, 4.0], [0.0, 0.0], [0.0, 0.0]])
    ours = summed_interval(columns, lambda sums: sums[:, 0] / np.where(sums[:, 1] > 0, sums[:, 1], np.nan))

    assert (ours.value, ours.low, ours.high) == (0.75, 0.75, 0.75)


def test_an_interval_of_resamples_that_all_have_nothing_to_score_has_no_ends() -> None:
    ours = summed_interval(np.ones((3, 1)), lambda sums: np.where(sums[:, 0] < 0, 1, np.nan))

    assert (ours.low, ours.high) == (None, None)


def test_the_spread_of_runs_is_that_of_numpy() -> None:
    values = [0.71, 0.74, 0.69, 0.80]
    ours = spread(values)

    assert (ours.mean, ours.sd) == pytest.approx((np.mean(values), stats.tstd(values)))
    assert (ours.n, ours.low, ours.high) == (4, 0.69, 0.80)


def test_a_single_run_has_no_standard_deviation() -> None:
    ours = spread([0.7])

    assert (ours.mean, ours.sd, ours.n, ours.low, ours.high) == (0.7, None, 1, 0.7, 0.7)


def test_the_spread_of_no_run_is_an_error() -> None:
    with pytest.raises(ConfigError, match="no run"):
        spread([])


def test_several_values_an_image_are_averaged_as_each_alone() -> None:
    table = np.column_stack([SCORES, SCORES**2, -SCORES])

    intervals = mean_intervals(table, GROUPS)

    assert intervals == tuple(mean_interval(column, GROUPS) for column in table.T)


def test_groups_that_are_not_one_an_image_are_an_error() -> None:
    with pytest.raises(ConfigError, match="Each of the 3 images needs its group, got 2 groups"):
        mean_interval([0.1, 0.2, 0.3], ["a", "b"])
