from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import f1_score, jaccard_score

from nucseg.errors import ConfigError, DataError
from nucseg.instances import InstanceRule
from nucseg.metrics import Resampling
from nucseg_cache import SampleRow
from nucseg_pipeline.report_compare import by_stratum, compare
from nucseg_pipeline.report_scores import IMAGE_METRICS, METRICS, RunScores, score_image

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


def scored(name: str, noise: float = 0.3, *, n_images: int = 6, groups: int = 0) -> RunScores:
    rows = [discs_row(n, group=f"slide {n % groups}" if groups else "") for n in range(n_images)]
    return RunScores(name, tuple(score_image(row, noisy(row, noise), RULE) for row in rows))


def test_overlap_scores_of_an_image_are_scikit_learns_of_the_thresholded_map() -> None:
    sample = discs_row(1)
    probability = noisy(sample)
    counted = ~sample.ignore
    truth, found = sample.instances[counted] > 0, probability[counted] >= np.float32(0.4)

    values = score_image(sample, probability, RULE).values

    assert values["dice"] == pytest.approx(f1_score(truth, found))
    assert values["miou"] == pytest.approx(jaccard_score(truth, found, average="macro"))
    assert values["dice_weighted"] == pytest.approx(f1_score(truth, found, average="weighted"))
    assert tuple(values) == IMAGE_METRICS


def test_a_perfect_map_scores_one_and_finds_every_nucleus() -> None:
    sample = discs_row(3)
    image = score_image(sample, (sample.instances > 0).astype(np.float32), RULE)

    assert image.values["dice"] == 1
    assert image.n_true == len(np.unique(sample.instances[~sample.ignore])) - 1
    assert (image.image_digest, image.stratum) == (sample.image_digest.hex(), "organ 1")


def test_a_prediction_that_is_not_finite_is_refused_with_the_image() -> None:
    sample = discs_row(1)

    with pytest.raises(DataError, match="image 1 is not finite"):
        score_image(sample, np.full((SIDE, SIDE), np.nan, np.float32), RULE)


@pytest.mark.parametrize("n_discs", [0, 3])
def test_finding_nothing_is_derived_as_an_empty_prediction_is_scored(n_discs: int) -> None:
    sample = discs_row(1, n_discs=n_discs)
    empty = score_image(sample, np.zeros((SIDE, SIDE), np.float32), RULE)
    some = RunScores("run", (score_image(sample, noisy(sample), RULE),))

    assert some.finding_nothing().images == (empty,)


def test_every_metric_has_an_interval_around_it() -> None:
    intervals = scored("run").intervals(DRAWS)

    assert tuple(intervals) == METRICS
    for interval in intervals.values():
        assert interval.low is not None
        assert interval.high is not None
        assert interval.low <= interval.value <= interval.high


def test_the_pooled_dice_counts_all_pixels_together() -> None:
    run = scored("run")
    counts = [image.counts for image in run.images]
    tp, fp, fn = (sum(getattr(one, name) for one in counts) for name in ("tp", "fp", "fn"))
    intervals = run.intervals(DRAWS)

    assert intervals["dice_pooled"].value == pytest.approx(2 * tp / (2 * tp + fp + fn))
    assert intervals["dice"].value == pytest.approx(np.mean(list(run.values("dice").values())))


def test_images_without_a_group_are_groups_of_their_own() -> None:
    assert scored("run").intervals(DRAWS)["dice"].n_groups == 6
    assert scored("run", groups=2).intervals(DRAWS)["dice"].n_groups == 2


def test_a_comparison_is_the_run_minus_the_baseline() -> None:
    good, bad = scored("good", noise=0.2), scored("bad", noise=0.5)
    difference = compare(bad, good, DRAWS).differences["dice"]

    assert difference.difference.value == pytest.approx(
        np.mean([good.values("dice")[one] - bad.values("dice")[one] for one in good.values("dice")])
    )
    assert difference.difference.value > 0
    assert difference.n_better == 6


def test_runs_scored_against_different_masks_are_refused() -> None:
    first, second = scored("first"), scored("second")
    redrawn = (replace(second.images[0], mask_digest="ff"), *second.images[1:])

    with pytest.raises(ConfigError, match=r"different masks for 1 of 6 test images \(such as image 0\)"):
        compare(first, RunScores("second", redrawn), DRAWS)


def test_means_by_stratum_are_those_of_its_images() -> None:
    run = scored("run")
    even, odd = by_stratum([run])
    dice = run.values("dice")

    assert (even.name, even.n_images, odd.name, odd.n_images) == ("organ 0", 3, "organ 1", 3)
    assert even.means["run"]["dice"] == pytest.approx(np.mean([dice[f"image {n}"] for n in (0, 2, 4)]))
