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


def test_resamples_with_nothing_to_score_are_left_out_of_the_interval() -> None:
    # one image in three has something to score: of 3 drawn, none in (2/3)**3 of the resamples
    columns = np.array([[3.0, 4.0], [0.0, 0.0], [0.0, 0.0]])
    ours = summed_interval(columns, lambda sums: sums[:, 0] / np.where(sums[:, 1] > 0, sums[:, 1], np.nan))

    nothing = summed_interval(np.ones((3, 1)), lambda sums: np.where(sums[:, 0] < 0, 1, np.nan))

    assert (ours.value, ours.low, ours.high) == (0.75, 0.75, 0.75)
    assert (nothing.low, nothing.high) == (None, None)


def test_the_spread_of_runs_is_that_of_numpy() -> None:
    values = [0.71, 0.74, 0.69, 0.80]
    ours, single = spread(values), spread([0.7])

    assert (ours.mean, ours.sd) == pytest.approx((np.mean(values), stats.tstd(values)))
    assert (ours.n, ours.low, ours.high) == (4, 0.69, 0.80)
    assert (single.mean, single.sd, single.n, single.low, single.high) == (0.7, None, 1, 0.7, 0.7)
    with pytest.raises(ConfigError, match="no run"):
        spread([])


def test_several_values_an_image_are_averaged_as_each_alone() -> None:
    table = np.column_stack([SCORES, SCORES**2, -SCORES])

    intervals = mean_intervals(table, GROUPS)

    assert intervals == tuple(mean_interval(column, GROUPS) for column in table.T)


def test_groups_that_are_not_one_an_image_are_an_error() -> None:
    with pytest.raises(ConfigError, match="Each of the 3 images needs its group, got 2 groups"):
        mean_interval([0.1, 0.2, 0.3], ["a", "b"])
