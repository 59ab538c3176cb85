from itertools import product

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.distance import cdist

from nucseg.errors import ConfigError
from nucseg.metrics import count_pixels, dice, overlaps, panoptic_quality
from nucseg.nuclei.instances import (
    MIN_AREAS_PX,
    MIN_DISTANCES_PX,
    SMOOTHINGS_PX,
    InstanceRule,
    choose_rule,
    distance_map,
    foreground,
    separate,
)

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
    """A probability map like a network's."""
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


def test_all_pixels_that_reach_the_threshold_are_foreground() -> None:
    probability = blurred(crowd(0), seed=0)
    rule = InstanceRule(threshold=0.4, min_distance_px=9, min_area_px=0)
    found = separate(probability, rule)

    np.testing.assert_array_equal(found > 0, probability >= np.float32(0.4))
    np.testing.assert_array_equal(found > 0, foreground(probability, rule))


def test_a_small_nucleus_next_to_a_large_one_is_kept() -> None:
    truth = discs((32, 20, 9), (32, 33, 3))

    assert separate((truth > 0).astype(np.float32), InstanceRule(min_distance_px=15)).max() == 2


def test_nuclei_below_the_smallest_area_are_dropped_and_the_others_numbered_without_gaps() -> None:
    truth = discs((10, 10, 2), (20, 40, 8), (50, 10, 2), (50, 50, 8))
    found = separate((truth > 0).astype(np.float32), InstanceRule(min_area_px=30))

    assert sorted(np.unique(found)) == [0, 1, 2]
    np.testing.assert_array_equal(found > 0, np.isin(truth, [2, 4]))


@pytest.mark.parametrize(("probability", "n_nuclei"), [(0.0, 0), (1.0, 1)])
def test_a_map_of_one_value_is_no_nucleus_or_one(probability, n_nuclei) -> None:
    found = separate(np.full((48, 48), probability, dtype=np.float32), InstanceRule())

    assert found.max() == n_nuclei


@pytest.mark.parametrize(
    "wrong",
    [{"threshold": 0.0}, {"threshold": 1.0}, {"smoothing_px": -1.0}, {"min_distance_px": 0}, {"min_area_px": -1}],
)
def test_an_impossible_rule_is_refused(wrong) -> None:
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

    def quality(rule: InstanceRule) -> float:
        pairs = zip(probabilities, truths, strict=True)
        return float(np.mean([panoptic_quality(overlaps(t, separate(p, rule))).pq for p, t in pairs]))

    assert quality(rule) > quality(distant) + 0.02
    assert quality(rule) >= quality(InstanceRule(threshold=rule.threshold))


def test_ignored_pixels_do_not_affect_the_choice() -> None:
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


def test_images_without_nuclei_give_the_default_rule() -> None:
    nothing = np.zeros((32, 32))

    assert choose_rule([nothing.astype(np.float32)], [nothing.astype(np.int32)], [nothing > 0]) == InstanceRule()


def test_no_validation_image_is_an_error() -> None:
    with pytest.raises(ConfigError, match="validation images"):
        choose_rule([], [], [])


def test_choosing_twice_gives_the_same_rule() -> None:
    truths = [crowd(seed) for seed in range(2)]
    probabilities = [blurred(truth, seed) for seed, truth in enumerate(truths)]
    nothing = [np.zeros(truths[0].shape, dtype=bool)] * 2

    assert choose_rule(probabilities, truths, nothing) == choose_rule(probabilities, truths, nothing)


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


# ---- the distance map, and nuclei by a predicted one


def halves(side: int = 40) -> InstanceMap:
    """Two nuclei that touch along their whole widest side: together they have the outline of one."""
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    return np.where((y / 8) ** 2 + (x / 14) ** 2 < 1, np.where(x < 0, 1, 2), 0).astype(np.int32)


def brute_force(instances: InstanceMap) -> Probability:
    """The distance map by its definition: every pixel of a nucleus against every pixel that is not of it."""
    distance = np.zeros(instances.shape)
    for number in np.unique(instances[instances > 0]):
        inside = instances == number
        nearest = cdist(np.argwhere(inside), np.argwhere(~inside)).min(axis=1)
        distance[inside] = nearest / nearest.max()
    return distance.astype(np.float32)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_distance_map_is_its_definition_for_nuclei_that_touch_and_that_the_image_cuts(seed) -> None:
    truth = crowd(seed, side=40, n=12) * 7  # numbers with gaps
    edge = np.concatenate([truth[0], truth[-1], truth[:, 0], truth[:, -1]])
    touching = (truth[1:] != truth[:-1]) & (truth[1:] > 0) & (truth[:-1] > 0)
    assert edge.any()
    assert touching.any()

    distance = distance_map(truth)

    np.testing.assert_allclose(distance, brute_force(truth), rtol=1e-6)
    assert distance.dtype == np.float32


def test_every_nucleus_has_a_deepest_pixel_of_one_whatever_its_size() -> None:
    truth = crowd(3, side=96, n=20)
    distance = distance_map(truth)

    numbers = np.unique(truth[truth > 0])
    np.testing.assert_array_equal(ndimage.maximum(distance, truth, numbers), 1)
    assert distance[truth > 0].min() > 0
    assert not distance[truth == 0].any()


@pytest.mark.parametrize(
    ("instances", "expected"),
    [
        pytest.param(
            [[0, 0, 0, 0, 0, 0], [0, 1, 1, 1, 2, 2], [0, 1, 1, 1, 2, 2], [0, 1, 1, 1, 2, 2], [0, 0, 0, 0, 0, 0]],
            [
                [0, 0, 0, 0, 0, 0],
                [0, 0.5, 0.5, 0.5, 0.5, 0.5],
                [0, 0.5, 1.0, 0.5, 0.5, 1.0],
                [0, 0.5, 0.5, 0.5, 0.5, 0.5],
                [0, 0, 0, 0, 0, 0],
            ],
            id="side by side, the right one at the edge",
        ),
        pytest.param([[4, 4, 4, 4, 0]] * 3, [[1, 0.75, 0.5, 0.25, 0]] * 3, id="cut on three sides"),
        pytest.param([[0, 0, 0], [0, 9, 0], [0, 0, 0]], [[0, 0, 0], [0, 1, 0], [0, 0, 0]], id="one pixel"),
        pytest.param([[0, 3], [5, 3]], [[0, 1], [1, 1]], id="in a corner"),
        pytest.param([[2, 2], [2, 2]], [[1, 1], [1, 1]], id="all of the image"),
        pytest.param([[0, 0], [0, 0]], [[0, 0], [0, 0]], id="none"),
    ],
)
def test_the_distance_map_drawn_by_hand(instances, expected) -> None:
    np.testing.assert_allclose(distance_map(np.array(instances, np.int32)), np.array(expected, np.float32))


def test_a_predicted_distance_separates_nuclei_that_the_outline_does_not() -> None:
    truth = halves()
    probability = (truth > 0).astype(np.float32)

    run_all = separate(probability, InstanceRule())
    parted = separate(probability, InstanceRule(), distance_map(truth))

    assert run_all.max() == 1
    quality = panoptic_quality(overlaps(truth, parted))
    assert quality.dq == 1
    assert quality.sq > 0.95
    np.testing.assert_array_equal(parted > 0, truth > 0)


def test_a_predicted_distance_does_not_change_the_foreground() -> None:
    truth = halves()
    found = separate(np.zeros(truth.shape, np.float32), InstanceRule(), distance_map(truth))

    assert not found.any()


@pytest.mark.parametrize("factor", [-0.3, 0, 1.4])
def test_labels_have_no_gaps_whatever_distance_is_predicted(factor) -> None:
    truth = discs((12, 12, 8), (12, 44, 8), (44, 28, 10))
    distance = distance_map(truth) * np.where(truth == 2, factor, 1).astype(np.float32)

    found = separate((truth > 0).astype(np.float32), InstanceRule(min_area_px=0), distance)

    assert sorted(np.unique(found)) == [0, 1, 2, 3]
    assert panoptic_quality(overlaps(truth, found)).pq == 1


def test_the_rule_for_predicted_distances_is_the_best_for_them() -> None:
    truths = [crowd(seed, side=72, n=14) for seed in range(2)]
    probabilities = [(truth > 0).astype(np.float32) for truth in truths]
    noise = np.random.default_rng(0).standard_normal((2, 72, 72)).astype(np.float32)
    distances = [distance_map(truth) + 0.4 * error for truth, error in zip(truths, noise, strict=True)]
    nothing = [np.zeros(truth.shape, bool) for truth in truths]

    rule = choose_rule(probabilities, truths, nothing, distances)

    def quality(rule: InstanceRule) -> float:
        images = zip(probabilities, truths, distances, strict=True)
        return float(np.mean([panoptic_quality(overlaps(t, separate(p, rule, d))).pq for p, t, d in images]))

    best = max(
        quality(InstanceRule(threshold=rule.threshold, smoothing_px=s, min_distance_px=d, min_area_px=a))
        for s, d, a in product(SMOOTHINGS_PX, MIN_DISTANCES_PX, MIN_AREAS_PX)
    )
    assert quality(rule) == pytest.approx(best)
    without = choose_rule(probabilities, truths, nothing)
    assert quality(rule) > quality(without) + 0.02


def test_distances_of_some_images_only_are_refused() -> None:
    truth = halves()
    probability, nothing = (truth > 0).astype(np.float32), np.zeros(truth.shape, bool)

    with pytest.raises(ValueError, match="zip"):
        choose_rule([probability] * 2, [truth] * 2, [nothing] * 2, [distance_map(truth)])


def test_a_doubled_distance_under_the_doubled_rule_gives_the_same_nuclei() -> None:
    truth = halves()
    probability, distance = (truth > 0).astype(np.float32), distance_map(truth)
    rule = InstanceRule(min_area_px=5)
    block = np.ones((2, 2), np.float32)

    small = separate(probability, rule, distance)
    large = separate(np.kron(probability, block), rule.scaled(2), np.kron(distance, block))

    assert small.max() == large.max() == 2
    assert (large[::2, ::2] != small).mean() < 0.01
