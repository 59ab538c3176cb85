import time

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from nucseg.errors import ConfigError
from nucseg.instances import InstanceRule, choose_rule, foreground, separate
from nucseg.metrics import count_pixels, dice, overlaps, panoptic_quality

Probability = NDArray[np.float32]
InstanceMap = NDArray[np.int32]


def discs(*centres: tuple[float, float, float], side: int = 64) -> InstanceMap:
    """Draw discs (row, column, radius) as nuclei 1, 2, ..."""
    rows, columns = np.mgrid[:side, :side]
    drawn = np.zeros((side, side), dtype=np.int32)
    for number, (y, x, radius) in enumerate(centres, start=1):
        drawn[(rows - y) ** 2 + (columns - x) ** 2 < radius**2] = number
    return drawn


def crowd(seed: int, side: int = 256, n: int = 90) -> InstanceMap:
    rng = np.random.default_rng(seed)
    places = rng.uniform(0, side, (n, 2))
    return discs(*((y, x, radius) for (y, x), radius in zip(places, rng.uniform(5, 9, n), strict=True)), side=side)


def blurred(truth: InstanceMap, seed: int, noise: float = 0.25, shift: float = 0.0) -> Probability:
    """A probability map as a network might give it."""
    rough = (truth > 0) + noise * np.random.default_rng(seed).standard_normal(truth.shape) + shift
    return np.clip(ndimage.gaussian_filter(rough, 1.0), 0, 1).astype(np.float32)


def test_discs_apart_are_found_exactly() -> None:
    truth = discs((12, 12, 8), (12, 44, 8), (44, 28, 10))
    found = separate((truth > 0).astype(np.float32), InstanceRule())
    quality = panoptic_quality(overlaps(truth, found))

    assert found.dtype == np.int32
    assert sorted(np.unique(found)) == [0, 1, 2, 3]
    assert quality.pq == 1


def test_two_discs_that_touch_become_two_nuclei_of_the_right_place() -> None:
    truth = discs((32, 22, 9), (32, 38, 9))
    found = separate((truth > 0).astype(np.float32), InstanceRule())

    assert panoptic_quality(overlaps(truth, found)).dq == 1
    assert panoptic_quality(overlaps(truth, found)).sq > 0.9


def test_the_foreground_is_what_reaches_the_threshold_and_nothing_of_it_gets_lost() -> None:
    probability = blurred(crowd(0), seed=0)
    rule = InstanceRule(threshold=0.4, min_distance_px=9, min_area_px=0)
    found = separate(probability, rule)

    np.testing.assert_array_equal(found > 0, probability >= np.float32(0.4))
    np.testing.assert_array_equal(found > 0, foreground(probability, rule))


def test_a_small_nucleus_beside_a_large_one_is_kept() -> None:
    truth = discs((32, 20, 9), (32, 33, 3))

    assert separate((truth > 0).astype(np.float32), InstanceRule(min_distance_px=15)).max() == 2


def test_nuclei_below_the_smallest_area_are_dropped_and_the_others_numbered_without_gaps() -> None:
    truth = discs((10, 10, 2), (20, 40, 8), (50, 10, 2), (50, 50, 8))
    found = separate((truth > 0).astype(np.float32), InstanceRule(min_area_px=30))

    assert sorted(np.unique(found)) == [0, 1, 2]
    np.testing.assert_array_equal(found > 0, np.isin(truth, [2, 4]))


@pytest.mark.parametrize(("probability", "n_nuclei"), [(0.0, 0), (1.0, 1)])
def test_a_map_of_one_value_is_no_nucleus_or_one(probability: float, n_nuclei: int) -> None:
    found = separate(np.full((48, 48), probability, dtype=np.float32), InstanceRule())

    assert found.max() == n_nuclei


@pytest.mark.parametrize(
    "wrong",
    [{"threshold": 0.0}, {"threshold": 1.0}, {"smoothing_px": -1.0}, {"min_distance_px": 0}, {"min_area_px": -1}],
)
def test_a_rule_that_cannot_be_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        InstanceRule(**wrong)  # type: ignore[arg-type]


def test_the_chosen_threshold_has_the_highest_mean_dice_of_all_thresholds() -> None:
    truths = [crowd(seed, side=96, n=12) for seed in range(4)]
    probabilities = [blurred(truth, seed, shift=0.2) for seed, truth in enumerate(truths)]
    nothing = np.zeros(truths[0].shape, dtype=bool)

    rule = choose_rule(probabilities, truths, [nothing] * 4)

    by_threshold = {
        threshold: np.mean(
            [dice(count_pixels(t > 0, p >= threshold)) for p, t in zip(probabilities, truths, strict=True)]
        )
        for threshold in np.float32(np.arange(10, 91, 5) / 100)
    }
    best = max(by_threshold, key=by_threshold.__getitem__)
    assert best != pytest.approx(0.5)
    assert rule.threshold == pytest.approx(best)


def test_the_chosen_rule_separates_better_than_one_that_asks_for_distant_centres() -> None:
    truths = [crowd(seed, side=128, n=40) for seed in range(3)]
    probabilities = [blurred(truth, seed) for seed, truth in enumerate(truths)]
    nothing = [np.zeros(truths[0].shape, dtype=bool)] * 3

    rule = choose_rule(probabilities, truths, nothing)
    distant = InstanceRule(threshold=rule.threshold, min_distance_px=25)

    def quality(one: InstanceRule) -> float:
        pairs = zip(probabilities, truths, strict=True)
        return float(np.mean([panoptic_quality(overlaps(t, separate(p, one))).pq for p, t in pairs]))

    assert quality(rule) > quality(distant) + 0.02
    assert quality(rule) >= quality(InstanceRule(threshold=rule.threshold))


def test_ignored_pixels_have_no_say_in_the_choice() -> None:
    truth = crowd(5, side=96, n=12)
    probability = blurred(truth, 5)
    ignore = np.zeros(truth.shape, dtype=bool)
    ignore[60:] = True
    misled = probability.copy()
    misled[60:] = np.where(truth[60:] > 0, 0.0, 0.3)

    with_them = choose_rule([misled], [truth], [np.zeros_like(ignore)])
    without = choose_rule([misled], [truth], [ignore])

    assert without.threshold == choose_rule([probability], [truth], [ignore]).threshold
    assert with_them.threshold != without.threshold


def test_without_any_evidence_the_choice_is_the_default_rule() -> None:
    nothing = np.zeros((32, 32))

    assert choose_rule([nothing.astype(np.float32)], [nothing.astype(np.int32)], [nothing > 0]) == InstanceRule()


def test_no_validation_image_is_an_error() -> None:
    with pytest.raises(ConfigError, match="validation images"):
        choose_rule([], [], [])


def test_choosing_twice_gives_the_same_rule_within_seconds() -> None:
    truths = [crowd(seed) for seed in range(2)]
    probabilities = [blurred(truth, seed) for seed, truth in enumerate(truths)]
    nothing = [np.zeros(truths[0].shape, dtype=bool)] * 2

    start = time.perf_counter()
    rule = choose_rule(probabilities, truths, nothing)
    seconds = time.perf_counter() - start

    assert rule == choose_rule(probabilities, truths, nothing)
    assert seconds < 8


def test_a_scaled_rule_measures_the_same_lengths_in_other_pixels() -> None:
    rule = InstanceRule(threshold=0.4, smoothing_px=1.5, min_distance_px=3, min_area_px=10)

    doubled = rule.scaled(2)

    assert doubled == InstanceRule(threshold=0.4, smoothing_px=3.0, min_distance_px=6, min_area_px=40)
    assert doubled.scaled(0.5) == rule
    assert rule.scaled(0.01).min_distance_px == 1
    assert rule.scaled(1) == rule


def test_a_doubled_map_under_the_doubled_rule_gives_the_same_nuclei() -> None:
    y, x = np.mgrid[:64, :64]
    discs = [(y - cy) ** 2 + (x - cx) ** 2 < 64 for cy, cx in [(16, 16), (16, 29), (45, 40)]]
    probability = np.any(discs, axis=0).astype(np.float32)
    rule = InstanceRule(min_area_px=5)

    small, large = (
        separate(probability, rule),
        separate(np.kron(probability, np.ones((2, 2), np.float32)), rule.scaled(2)),
    )

    assert small.max() == large.max() == 3
    # the line between two nuclei that touch may move by a pixel
    assert (large[::2, ::2] != small).mean() < 0.01
