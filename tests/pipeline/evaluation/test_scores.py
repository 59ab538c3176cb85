from dataclasses import astuple, replace

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import brier_score_loss, f1_score, jaccard_score

from nucseg.errors import ConfigError, DataError
from nucseg.metrics import Resampling, calibration_interval, dice, mean_interval, pooled_interval
from nucseg.nuclei.instances import InstanceRule, distance_map
from nucseg_cache import SampleRow
from nucseg_pipeline.evaluation.comparison import by_stratum, compare
from nucseg_pipeline.evaluation.scored_images import prepared_grid
from nucseg_pipeline.evaluation.scores import IMAGE_METRICS, METRICS, ImageScores, RunScores, averaged, score_image
from nucseg_pipeline.modelling.inference import Prediction

SIDE = 32
RULE = InstanceRule(threshold=0.4, min_area_px=0)
DRAWS = Resampling(n_resamples=500)


def discs_row(number: int, *, n_discs: int = 3, group: str = "") -> SampleRow:
    rng = np.random.default_rng(number)
    y, x = np.mgrid[:SIDE, :SIDE]
    instances = np.zeros((SIDE, SIDE), np.int32)
    for disc in range(1, n_discs + 1):
        centre_y, centre_x = rng.integers(4, SIDE - 6, 2)
        instances[(y - centre_y) ** 2 + (x - centre_x) ** 2 < 16] = disc
    return SampleRow(
        id=f"image {number}",
        group=group,
        stratum=f"organ {number % 2}",
        mpp=None,
        size=(SIDE, SIDE),
        image=np.zeros((SIDE, SIDE, 3), np.uint8),
        instances=instances,
        ignore=y >= SIDE - 3,
        image_digest=number.to_bytes(32, "big"),
        mask_digest=number.to_bytes(32, "big"),
    )


def noisy(sample: SampleRow, noise: float = 0.3) -> NDArray[np.float32]:
    rng = np.random.default_rng(sample.image_digest[-1])
    return np.clip((sample.instances > 0) + noise * rng.standard_normal((SIDE, SIDE)), 0, 1).astype(np.float32)


def score(sample: SampleRow, probability: NDArray[np.float32]) -> ImageScores:
    return score_image(prepared_grid(Prediction(sample, probability)), RULE)


def scored(name: str, noise: float = 0.3, *, n_images: int = 6, groups: int = 0) -> RunScores:
    rows = [discs_row(n, group=f"slide {n % groups}" if groups else "") for n in range(n_images)]
    return RunScores(name, tuple(score(row, noisy(row, noise)) for row in rows))


def test_scores_of_an_image_are_scikit_learns_of_the_thresholded_map() -> None:
    sample = discs_row(1)
    probability = noisy(sample)
    counted = ~sample.ignore
    truth, found = sample.instances[counted] > 0, probability[counted] >= np.float32(0.4)

    scores = score(sample, probability)
    values = scores.values

    assert values["dice"] == pytest.approx(f1_score(truth, found))
    assert values["miou"] == pytest.approx(jaccard_score(truth, found, average="macro"))
    assert values["dice_weighted"] == pytest.approx(f1_score(truth, found, average="weighted"))
    assert values["brier"] == pytest.approx(brier_score_loss(truth, probability[counted].astype(np.float64)))
    assert 0 < values["hd95"] < scores.diagonal_px == pytest.approx(SIDE * 2**0.5)
    assert 0 < values["boundary_f1"] < 1
    assert scores.reliability.n_pixels.sum() == counted.sum()
    assert tuple(values) == IMAGE_METRICS


def test_a_perfect_map_scores_one_and_finds_every_nucleus() -> None:
    sample = discs_row(3)
    image = score(sample, (sample.instances > 0).astype(np.float32))

    assert image.values["dice"] == 1
    assert image.n_true == len(np.unique(sample.instances[~sample.ignore])) - 1
    assert (image.image_digest, image.stratum) == (sample.image_digest.hex(), "organ 1")
    run = RunScores("run", (image,))
    assert sum(size.n_nuclei for size in run.recall_by_size(DRAWS)) == image.n_true
    assert {size.recall.value for size in run.recall_by_size(DRAWS)} == {1}
    assert {size.recall.value for size in run.all_background().recall_by_size(DRAWS)} == {0}


def test_a_prediction_that_is_not_finite_is_refused_with_the_image() -> None:
    sample = discs_row(1)

    with pytest.raises(DataError, match="image 1 is not finite"):
        score(sample, np.full((SIDE, SIDE), np.nan, np.float32))
    distance = np.zeros((SIDE, SIDE), np.float32)
    distance[3, 3] = np.inf

    with pytest.raises(DataError, match="image 1 is not finite"):
        score_image(prepared_grid(Prediction(sample, noisy(sample), distance)), RULE)


def test_the_distance_separates_nuclei_and_does_not_change_pixels() -> None:
    y, x = np.mgrid[:SIDE, :SIDE] - 13.5
    halves = np.where((y / 6) ** 2 + (x / 11) ** 2 < 1, np.where(x < 0, 1, 2), 0).astype(np.int32)
    sample = replace(discs_row(1), instances=halves)
    probability = (halves > 0).astype(np.float32)

    without = score(sample, probability)
    with_distance = score_image(prepared_grid(Prediction(sample, probability, distance_map(halves))), RULE)

    assert (without.n_true, without.n_predicted, with_distance.n_predicted) == (2, 1, 2)
    assert with_distance.values["dq"] == 1
    assert with_distance.counts == without.counts


@pytest.mark.parametrize("n_discs", [0, 3])
def test_the_derived_scores_of_an_empty_prediction_are_those_of_scoring_one(n_discs: int) -> None:
    sample = discs_row(1, n_discs=n_discs)
    empty = score(sample, np.zeros((SIDE, SIDE), np.float32))
    some = RunScores("run", (score(sample, noisy(sample)),))

    assert some.all_background().images == (empty,)


def test_images_without_a_group_are_groups_of_their_own() -> None:
    assert scored("run").intervals(DRAWS)["dice"].n_groups == 6
    assert scored("run", groups=2).intervals(DRAWS)["dice"].n_groups == 2


def test_a_comparison_is_the_run_minus_the_baseline() -> None:
    good, bad = scored("good", noise=0.2), scored("bad", noise=0.5)
    difference = compare(bad, good, DRAWS).differences["dice"]

    assert difference.difference.value == pytest.approx(
        np.mean([good.values("dice")[image_id] - bad.values("dice")[image_id] for image_id in good.values("dice")])
    )
    assert difference.difference.value > 0
    assert difference.n_better == 6


def test_lower_is_better_for_distances_and_errors() -> None:
    good, bad = scored("good", noise=0.05), scored("bad", noise=0.6)
    differences = compare(bad, good, DRAWS).differences

    assert differences["hd95"].difference.value < 0
    assert [differences[name].n_better for name in ("hd95", "brier", "boundary_f1")] == [6, 6, 6]


def test_runs_scored_against_different_masks_are_refused() -> None:
    first, second = scored("first"), scored("second")
    redrawn = (replace(second.images[0], mask_digest="ff"), *second.images[1:])

    with pytest.raises(ConfigError, match=r"different images or masks .*1 of 6 \(such as image 0\)"):
        compare(first, RunScores("second", redrawn), DRAWS)
    recoloured = (replace(second.images[0], image_digest="ff"), *second.images[1:])
    with pytest.raises(ConfigError, match="different images or masks"):
        compare(first, RunScores("second", recoloured), DRAWS)


def test_means_by_stratum_are_those_of_its_images() -> None:
    run = scored("run")
    even, odd = by_stratum([run])
    dice = run.values("dice")

    assert (even.name, even.n_images, odd.name, odd.n_images) == ("organ 0", 3, "organ 1", 3)
    assert even.means["run"]["dice"] == pytest.approx(np.mean([dice[f"image {n}"] for n in (0, 2, 4)]))


def test_one_empty_mask_counts_the_diagonal_and_is_counted() -> None:
    empty, full = discs_row(1, n_discs=0), discs_row(2)
    nothing = np.zeros((SIDE, SIDE), np.float32)
    run = RunScores("run", (score(empty, nothing), score(full, nothing)))

    assert run.values("hd95") == {"image 1": 0, "image 2": pytest.approx(SIDE * 2**0.5)}
    assert run.n_one_empty == 1
    found = RunScores("other", (score(empty, nothing), score(full, (full.instances > 0).astype(np.float32))))
    both = averaged("both", [run, found])
    assert (both.n_one_empty, len(both.predictions)) == (1, 4)
    assert both.all_background().n_one_empty == 1


def test_the_rule_grows_with_the_grid() -> None:
    """Nuclei that are separated on the grid of the training are also separated on a grid four times as fine."""
    sample = discs_row(3, n_discs=4)
    rule = InstanceRule(min_area_px=6, min_distance_px=2)
    small = prepared_grid(Prediction(sample, (sample.instances > 0).astype(np.float32)))
    block = np.ones((4, 4), np.int32)
    large = replace(
        small,
        instances=np.kron(small.instances, block),
        ignore=np.kron(small.ignore, block) > 0,
        probability=np.kron(small.probability, block).astype(np.float32),
        scale=4.0,
    )

    assert score_image(large, rule).n_predicted == score_image(small, rule).n_predicted
    assert score_image(large, rule).values["aji"] == pytest.approx(score_image(small, rule).values["aji"], abs=0.1)


def test_repeats_are_averaged_image_by_image() -> None:
    first, second = scored("s0", noise=0.2), scored("s1", noise=0.5)

    both = averaged("both", [first, second])

    for image_id, value in both.values("aji").items():
        assert value == pytest.approx((first.values("aji")[image_id] + second.values("aji")[image_id]) / 2)
    assert both.images[0].n_predicted == (first.images[0].n_predicted + second.images[0].n_predicted) / 2
    shares = (first.images[0].nuclei.found + second.images[0].nuclei.found) / 2
    np.testing.assert_array_equal(both.images[0].nuclei.found, shares)
    assert averaged("twice", [first, first]).intervals(DRAWS) == first.intervals(DRAWS)


def test_scores_of_all_pixels_are_those_of_the_repeats_averaged() -> None:
    """Summed bins would let the overconfidence of one run cancel the underconfidence of the other."""
    rows = [discs_row(n) for n in range(6)]
    sure = RunScores("s0", tuple(score(row, noisy(row, 0.1) ** 0.5) for row in rows))
    unsure = RunScores("s1", tuple(score(row, noisy(row, 0.1) * 0.6) for row in rows))

    both = averaged("both", [sure, unsure]).intervals(DRAWS)

    for metric in ("ece", "dice_pooled", "iou_pooled"):
        alone = [run.intervals(DRAWS)[metric] for run in (sure, unsure)]
        assert both[metric].value == pytest.approx(np.mean([interval.value for interval in alone]))
        assert both[metric].low is not None
        assert min(interval.low or 0 for interval in alone) <= both[metric].low <= both[metric].value


def test_an_image_counts_alike_however_often_it_was_predicted() -> None:
    whole = scored("run", noise=0.4)
    fold, other = RunScores("f0", whole.images[:2]), RunScores("f1", whole.images[2:])

    uneven = averaged("run", [fold, fold, fold, other]).intervals(DRAWS)

    assert averaged("run", [fold, other]).images == whole.images
    for metric, interval in whole.intervals(DRAWS).items():
        assert astuple(uneven[metric]) == pytest.approx(astuple(interval)), metric


def test_every_metric_is_what_its_own_interval_gives() -> None:
    """One resampling for all of them against one for each."""
    run = scored("run", groups=3)
    groups = list(run.groups.values())
    run_all = run.intervals(DRAWS)

    assert tuple(run_all) == METRICS
    assert all(interval.low <= interval.value <= interval.high for interval in run_all.values())
    assert run_all["aji"] == mean_interval(list(run.values("aji").values()), groups, DRAWS)
    assert run_all["dice_pooled"] == pooled_interval([image.counts for image in run.images], dice, groups, DRAWS)
    assert run_all["ece"] == calibration_interval([image.reliability for image in run.images], groups, DRAWS)
