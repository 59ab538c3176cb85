from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import f1_score, jaccard_score

from nucseg.data import open_dataset, prepare
from nucseg.errors import DataError
from nucseg.metrics import PixelCounts, count_pixels, dice, dice_weighted, iou, iou_weighted, miou, total

Mask = NDArray[np.bool_]

TRUTH = np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0]], dtype=bool)
PREDICTION = np.array([[0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]], dtype=bool)


def random_pair(seed: int) -> tuple[Mask, Mask]:
    rng = np.random.default_rng(seed)
    truth = rng.random((23, 31)) < 0.2
    return truth, truth ^ (rng.random(truth.shape) < 0.1)


def test_a_hand_drawn_pair_is_counted_pixel_by_pixel() -> None:
    assert count_pixels(TRUTH, PREDICTION) == PixelCounts(tp=2, fp=2, fn=2, tn=6)


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


def test_ignored_pixels_count_in_none_of_the_four() -> None:
    ignore = np.zeros_like(TRUTH)
    ignore[:, 2] = True

    assert count_pixels(TRUTH, PREDICTION, ignore) == PixelCounts(tp=2, fp=0, fn=2, tn=5)


def test_masks_of_different_shapes_are_refused_by_name_and_shape() -> None:
    with pytest.raises(DataError, match=r"truth \(3, 4\), prediction \(3, 3\)"):
        count_pixels(TRUTH, PREDICTION[:, :3])


@pytest.mark.shared
def test_an_empty_prediction_of_real_images_scores_0_by_dice_and_077_by_the_weighted_dice(shared: Path) -> None:
    counts = []
    for entry in open_dataset("nuinsseg", shared / "data" / "nuinsseg").entries:
        sample, *_ = entry.read()
        prepared = prepare(sample.image, sample.instances, sample.ignore)
        counts.append(count_pixels(prepared.instances > 0, np.zeros((256, 256), bool), prepared.ignore))

    assert len(counts) == 124
    assert np.mean([dice(image) for image in counts]) == 0
    assert np.mean([dice_weighted(image) for image in counts]) == pytest.approx(0.77, abs=0.01)
