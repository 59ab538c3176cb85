import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss

from nucseg.errors import ConfigError, DataError
from nucseg.metrics import (
    Reliability,
    Resampling,
    brier,
    calibration_interval,
    count_reliability,
    expected_calibration_error,
)
from nucseg.metrics.calibration import N_BINS

Probability = NDArray[np.float32]
Mask = NDArray[np.bool_]


def overconfident(seed: int, shape: tuple[int, int] = (40, 50)) -> tuple[Probability, Mask]:
    """Draw a map of probabilities, and a truth that is less certain than they claim."""
    rng = np.random.default_rng(seed)
    probability = rng.beta(0.4, 0.6, shape)
    return probability.astype(np.float32), rng.random(shape) < 0.2 + 0.6 * probability


def as_lists(counts: Reliability) -> list[list[float]]:
    return [counts.n_pixels.tolist(), counts.probability_sum.tolist(), counts.n_nucleus_pixels.tolist()]


def pooled_error(counts: list[Reliability]) -> float:
    return expected_calibration_error(sum(counts, start=Reliability.of_nothing(0, 0)))


@pytest.mark.parametrize("seed", range(3))
def test_the_bins_are_those_of_scikit_learns_calibration_curve(seed: int) -> None:
    probability, truth = overconfident(seed)
    counts = count_reliability(probability, truth)
    flat = probability.ravel().astype(np.float64)
    observed, predicted = calibration_curve(truth.ravel(), flat, n_bins=N_BINS, strategy="uniform")
    share = np.histogram(flat, bins=N_BINS, range=(0, 1))[0] / flat.size

    assert counts.probability_sum / counts.n_pixels == pytest.approx(predicted)
    assert counts.n_nucleus_pixels / counts.n_pixels == pytest.approx(observed)
    assert expected_calibration_error(counts) == pytest.approx((share * np.abs(observed - predicted)).sum())
    assert expected_calibration_error(counts) > 0.05


def test_each_bin_holds_its_upper_end() -> None:
    # 0.2 is the upper end of the third bin; in float64, because float32 has no multiple of 1/15 in between
    probability = np.array([[0.0, 0.2, np.nextafter(0.2, 1), 1.0]])
    counts = count_reliability(probability, np.zeros((1, 4), dtype=bool))  # type: ignore[arg-type]

    assert np.flatnonzero(counts.n_pixels).tolist() == [0, 2, 3, 14]


def test_counts_of_images_add_up_to_those_of_all_pixels() -> None:
    pairs = [overconfident(seed) for seed in range(3)]
    whole = count_reliability(*(np.concatenate(arrays) for arrays in zip(*pairs, strict=True)))
    added = sum((count_reliability(*pair) for pair in pairs), start=Reliability.of_nothing(0, 0))

    np.testing.assert_allclose(as_lists(added), as_lists(whole))
    assert brier(added) == pytest.approx(brier(whole))


def test_ignored_pixels_count_in_no_bin_whatever_they_hold() -> None:
    probability, truth = overconfident(0)
    ignore = np.random.default_rng(1).random(truth.shape) < 0.3
    strange = np.where(ignore, np.float32("nan"), probability)
    counts = count_reliability(strange, truth ^ ignore, ignore)

    assert counts.n_pixels.sum() == (~ignore).sum()
    assert brier(counts) == pytest.approx(brier_score_loss(truth[~ignore], probability[~ignore].astype(np.float64)))


def test_finding_nothing_is_what_probability_zero_everywhere_gives() -> None:
    truth = overconfident(0)[1]
    counted = count_reliability(np.zeros(truth.shape, dtype=np.float32), truth)
    nothing = Reliability.of_nothing(truth.size, int(truth.sum()))

    assert as_lists(nothing) == as_lists(counted)
    assert nothing.squared_error == counted.squared_error
    assert brier(nothing) == expected_calibration_error(nothing) == pytest.approx(truth.mean())


def test_sums_do_not_drift_with_the_number_of_pixels() -> None:
    probability = np.full((2000, 2000), 0.1, dtype=np.float32)
    counts = count_reliability(probability, np.zeros(probability.shape, dtype=bool))
    exact = float(np.float32(0.1))

    assert counts.probability_sum.sum() == pytest.approx(4e6 * exact, rel=1e-9)
    assert counts.squared_error == pytest.approx(4e6 * exact**2, rel=1e-9)


def test_the_pooled_error_has_the_interval_of_scipys_bootstrap_over_groups() -> None:
    counts = [count_reliability(*overconfident(seed, (10, 10 + seed))) for seed in range(12)]
    groups = [f"slide-{seed // 2}" for seed in range(12)]
    slides = [counts[position] + counts[position + 1] for position in range(0, 12, 2)]
    draws = Resampling(n_resamples=2000)
    other = stats.bootstrap(
        (np.arange(6),),
        lambda drawn: pooled_error([slides[slide] for slide in drawn.astype(int)]),
        vectorized=False,
        n_resamples=2000,
        method="percentile",
        rng=1,
    )
    ours = calibration_interval(counts, groups, draws)

    assert ours.value == pytest.approx(pooled_error(counts))
    assert (ours.n_images, ours.n_groups) == (12, 6)
    assert (ours.low, ours.high) == pytest.approx(
        (other.confidence_interval.low, other.confidence_interval.high), abs=0.006
    )


def test_an_interval_over_ignored_images_is_zero_and_over_none_an_error() -> None:
    ours = calibration_interval([Reliability.of_nothing(0, 0)] * 3)

    assert (ours.value, ours.low, ours.high) == (0, 0, 0)
    with pytest.raises(ConfigError, match="no image"):
        calibration_interval([])


@pytest.mark.parametrize("wrong", [-0.2, 1.5, float("nan"), float("inf")])
def test_values_that_are_not_probabilities_are_refused(wrong: float) -> None:
    probability, truth = overconfident(0)
    probability[3, 4] = wrong

    with pytest.raises(DataError, match="between 0 and 1"):
        count_reliability(probability, truth)


def test_rounding_beyond_one_is_a_probability_still() -> None:
    probability = np.full((2, 2), np.nextafter(np.float32(1), np.float32(2)))

    assert count_reliability(probability, np.ones((2, 2), dtype=bool)).n_pixels[-1] == 4


def test_arrays_of_different_shapes_are_refused_with_their_shapes() -> None:
    probability, truth = overconfident(0)

    with pytest.raises(DataError, match=r"truth \(39, 50\), prediction \(40, 50\)"):
        count_reliability(probability, truth[1:])
