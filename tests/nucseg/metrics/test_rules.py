"""What holds for every metric: empty masks, ignored pixels, a perfect prediction, and the bounds of any score."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from nucseg.metrics import (
    PixelCounts,
    Resampling,
    aji,
    boundary_f1,
    brier,
    calibration_interval,
    count_pixels,
    count_reliability,
    dice,
    dice_weighted,
    expected_calibration_error,
    hausdorff95,
    iou,
    iou_weighted,
    matched,
    miou,
    overlaps,
    panoptic_quality,
    pooled_interval,
)

InstanceMap = NDArray[np.int32]
Mask = NDArray[np.bool_]
Score = Callable[[InstanceMap, InstanceMap, Mask], float]

ONE_RESAMPLE = Resampling(n_resamples=1)


def of_pixels(score: Callable[[PixelCounts], float]) -> Score:
    return lambda truth, prediction, ignore: score(count_pixels(truth > 0, prediction > 0, ignore))


def pooled(score: Callable[[PixelCounts], float]) -> Score:
    return lambda truth, prediction, ignore: (
        pooled_interval([count_pixels(truth > 0, prediction > 0, ignore)] * 2, score, draws=ONE_RESAMPLE).value
    )


def of_quality(name: str) -> Score:
    return lambda truth, prediction, ignore: getattr(panoptic_quality(overlaps(truth, prediction, ignore)), name)


def calibration(truth: InstanceMap, prediction: InstanceMap, ignore: Mask):  # type: ignore[no-untyped-def]
    """Count a network that always predicts 0 or 1."""
    return count_reliability((prediction > 0).astype(np.float32), truth > 0, ignore)


SCORES: dict[str, Score] = {
    "dice": of_pixels(dice),
    "iou": of_pixels(iou),
    "miou": of_pixels(miou),
    "dice_weighted": of_pixels(dice_weighted),
    "iou_weighted": of_pixels(iou_weighted),
    "dice_pooled": pooled(dice),
    "iou_pooled": pooled(iou),
    "aji": lambda truth, prediction, ignore: aji(overlaps(truth, prediction, ignore)),
    "pq": of_quality("pq"),
    "dq": of_quality("dq"),
    "sq": of_quality("sq"),
    "hd95": lambda truth, prediction, ignore: hausdorff95(truth > 0, prediction > 0, ignore),
    "boundary_f1": lambda truth, prediction, ignore: boundary_f1(truth > 0, prediction > 0, ignore),
    "brier": lambda *maps: brier(calibration(*maps)),
    "ece": lambda *maps: expected_calibration_error(calibration(*maps)),
    "ece_pooled": lambda *maps: calibration_interval([calibration(*maps)] * 2, draws=ONE_RESAMPLE).value,
    "missed": lambda *maps: float(np.sum(~matched(overlaps(*maps)))),
}

NOTHING = np.zeros((6, 8), dtype=np.int32)
NUCLEUS = NOTHING.copy()
NUCLEUS[2:4, 3:5] = 1
NONE_IGNORED = np.zeros((6, 8), dtype=bool)

# 4 of 48 pixels are nucleus; the diagonal is 10 pixels
BACKGROUND_DICE, BACKGROUND_IOU = 88 / 92, 44 / 48
RULES = [
    # name, both empty, the prediction empty, the truth empty
    ("dice", 1, 0, 0),
    ("iou", 1, 0, 0),
    ("miou", 1, BACKGROUND_IOU / 2, BACKGROUND_IOU / 2),
    ("dice_weighted", 1, 44 / 48 * BACKGROUND_DICE, BACKGROUND_DICE),
    ("iou_weighted", 1, 44 / 48 * BACKGROUND_IOU, BACKGROUND_IOU),
    ("dice_pooled", 1, 0, 0),
    ("iou_pooled", 1, 0, 0),
    ("aji", 1, 0, 0),
    ("pq", 1, 0, 0),
    ("dq", 1, 0, 0),
    ("sq", 1, 0, 0),
    ("hd95", 0, 10, 10),
    ("boundary_f1", 1, 0, 0),
    ("brier", 0, 4 / 48, 4 / 48),
    ("ece", 0, 4 / 48, 4 / 48),
    ("ece_pooled", 0, 4 / 48, 4 / 48),
    ("missed", 0, 1, 0),
]
PERFECT = {name: both_empty for name, both_empty, _, _ in RULES}


def drawn(seed: int, n_nuclei: int = 6, side: int = 24) -> InstanceMap:
    rng = np.random.default_rng(seed)
    instances = np.zeros((side, side), dtype=np.int32)
    for number in range(1, n_nuclei + 1):
        (top, left), (height, width) = rng.integers(0, side - 3, 2), rng.integers(2, 8, 2)
        instances[top : top + height, left : left + width] = number
    return instances


def ignored(seed: int, side: int = 24) -> Mask:
    """Draw pixels to be ignored: blocks, of which some cut nuclei, and single ones."""
    rng = np.random.default_rng(seed)
    return (drawn(seed, 3, side) > 0) | (rng.random((side, side)) < 0.05)


def test_every_score_has_a_rule() -> None:
    assert [rule[0] for rule in RULES] == list(SCORES)


@pytest.mark.parametrize(("name", "both", "no_prediction", "no_truth"), RULES, ids=list(SCORES))
def test_empty_masks_score_by_the_rule(name: str, both: float, no_prediction: float, no_truth: float) -> None:
    score = SCORES[name]

    assert score(NOTHING, NOTHING, NONE_IGNORED) == both
    assert score(NUCLEUS, NOTHING, NONE_IGNORED) == pytest.approx(no_prediction)
    assert score(NOTHING, NUCLEUS, NONE_IGNORED) == pytest.approx(no_truth)


@pytest.mark.parametrize("name", SCORES)
def test_masks_that_are_empty_where_it_counts_score_as_empty_ones(name: str) -> None:
    hidden = NUCLEUS > 0

    assert SCORES[name](NUCLEUS, NOTHING, hidden) == PERFECT[name]
    assert SCORES[name](NOTHING, NUCLEUS, hidden) == PERFECT[name]
    assert SCORES[name](NUCLEUS, NUCLEUS, np.ones_like(hidden)) == PERFECT[name]


@pytest.mark.parametrize("name", SCORES)
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_a_prediction_that_is_the_truth_is_perfect(name: str, seed: int) -> None:
    truth = drawn(seed)

    assert SCORES[name](truth, truth, ignored(seed + 1)) == pytest.approx(PERFECT[name])


@pytest.mark.parametrize("name", SCORES)
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_what_lies_in_ignored_pixels_never_matters(name: str, seed: int) -> None:
    truth, prediction, ignore = drawn(seed), drawn(seed + 1), ignored(seed + 2)
    noise = np.random.default_rng(seed).integers(0, 9, (2, *truth.shape), dtype=np.int32)
    other_truth, other_prediction = np.where(ignore, noise[0], truth), np.where(ignore, noise[1], prediction)

    assert SCORES[name](truth, prediction, ignore) == SCORES[name](other_truth, other_prediction, ignore)


@pytest.mark.parametrize("name", SCORES)
def test_a_prediction_that_errs_in_ignored_pixels_alone_is_perfect(name: str) -> None:
    truth, prediction = np.zeros((2, 12, 12), dtype=np.int32)
    truth[1:6, 1:6], prediction[1:6, 2:6] = 1, 1
    truth[8:11, 7:11] = 2
    ignore = np.zeros(truth.shape, dtype=bool)
    ignore[:, 1], ignore[7:] = True, True

    assert SCORES[name](truth, prediction, ignore) == PERFECT[name]
    assert SCORES[name](truth, prediction, np.zeros_like(ignore)) != PERFECT[name]


@pytest.mark.parametrize("name", [name for name in SCORES if name not in ("hd95", "missed")])
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_shares_lie_between_zero_and_one(name: str, seed: int) -> None:
    assert 0 <= SCORES[name](drawn(seed), drawn(seed + 1), ignored(seed + 2)) <= 1
