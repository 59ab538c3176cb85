import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import f1_score, jaccard_score

from nucseg.errors import DataError
from nucseg.metrics import (
    PixelCounts,
    count_pixels,
    dice,
    dice_weighted,
    iou,
    iou_weighted,
    miou,
    total,
)

Mask = NDArray[np.bool_]

TRUTH = np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0]], dtype=bool)
PREDICTION = np.array([[0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]], dtype=bool)
EMPTY = np.zeros_like(TRUTH)


def random_pair(seed: int) -> tuple[Mask, Mask]:
    rng = np.random.default_rng(seed)
    truth = rng.random((23, 31)) < 0.2
    return truth, truth ^ (rng.random(truth.shape) < 0.1)


def test_a_hand_drawn_pair_is_counted_pixel_by_pixel() -> None:
    assert count_pixels(TRUTH, PREDICTION) == PixelCounts(tp=2, fp=2, fn=2, tn=6)


def test_scores_of_a_hand_drawn_pair_are_those_of_pen_and_paper() -> None:
    counts = count_pixels(TRUTH, PREDICTION)

    assert dice(counts) == pytest.approx(4 / 8)
    assert iou(counts) == pytest.approx(2 / 6)
    assert miou(counts) == pytest.approx((2 / 6 + 6 / 10) / 2)
    assert dice_weighted(counts) == pytest.approx(4 / 12 * 4 / 8 + 8 / 12 * 12 / 16)
    assert iou_weighted(counts) == pytest.approx(4 / 12 * 2 / 6 + 8 / 12 * 6 / 10)


@pytest.mark.parametrize("seed", range(5))
def test_scores_agree_with_scikit_learn(seed: int) -> None:
    truth, prediction = random_pair(seed)
    counts = count_pixels(truth, prediction)
    flat = (truth.ravel(), prediction.ravel())

    assert dice(counts) == pytest.approx(f1_score(*flat))
    assert iou(counts) == pytest.approx(jaccard_score(*flat))
    assert miou(counts) == pytest.approx(jaccard_score(*flat, average="macro"))
    assert dice_weighted(counts) == pytest.approx(f1_score(*flat, average="weighted"))
    assert iou_weighted(counts) == pytest.approx(jaccard_score(*flat, average="weighted"))


def test_the_pooled_dice_is_that_of_all_pixels_in_one_image() -> None:
    pairs = [random_pair(seed) for seed in range(3)]
    truth, prediction = (np.concatenate(masks) for masks in zip(*pairs, strict=True))

    pooled = dice(total(count_pixels(*pair) for pair in pairs))

    assert pooled == pytest.approx(f1_score(truth.ravel(), prediction.ravel()))
    assert pooled != pytest.approx(np.mean([dice(count_pixels(*pair)) for pair in pairs]), abs=1e-6)


@pytest.mark.parametrize("score", [dice, iou])
def test_two_empty_masks_agree_and_one_empty_mask_does_not(score) -> None:  # type: ignore[no-untyped-def]
    assert score(count_pixels(EMPTY, EMPTY)) == 1
    assert score(count_pixels(TRUTH, EMPTY)) == 0
    assert score(count_pixels(EMPTY, PREDICTION)) == 0


def test_pure_background_does_well_by_the_weighted_dice_alone() -> None:
    truth = np.zeros((100, 100), dtype=bool)
    truth[:13] = True
    counts = count_pixels(truth, np.zeros_like(truth))

    assert dice(counts) == 0
    assert dice_weighted(counts) == pytest.approx(0.87 * 2 * 0.87 / 1.87)
    assert dice_weighted(counts) == pytest.approx(
        f1_score(truth.ravel(), np.zeros(truth.size, dtype=bool), average="weighted")
    )


def test_ignored_pixels_count_in_none_of_the_four() -> None:
    ignore = np.zeros_like(TRUTH)
    ignore[:, 2] = True

    assert count_pixels(TRUTH, PREDICTION, ignore) == PixelCounts(tp=2, fp=0, fn=2, tn=5)


def test_what_a_prediction_says_of_ignored_pixels_changes_nothing() -> None:
    truth, prediction = random_pair(0)
    ignore = np.random.default_rng(1).random(truth.shape) < 0.3

    assert count_pixels(truth, prediction, ignore) == count_pixels(truth, prediction ^ ignore, ignore)


def test_an_image_ignored_as_a_whole_scores_as_two_empty_masks() -> None:
    counts = count_pixels(TRUTH, PREDICTION, np.ones_like(TRUTH))

    assert (dice(counts), iou(counts), miou(counts), dice_weighted(counts)) == (1, 1, 1, 1)


def test_masks_of_different_shapes_are_refused_by_name_and_shape() -> None:
    with pytest.raises(DataError, match=r"truth \(3, 4\), prediction \(3, 3\)"):
        count_pixels(TRUTH, PREDICTION[:, :3])
