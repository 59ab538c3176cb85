import math
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from skimage.metrics import hausdorff_distance

from nucseg.errors import DataError
from nucseg.metrics import boundary_f1, hausdorff95

Mask = NDArray[np.bool_]

# monai's own function calls another with an argument that it has deprecated itself
monai_warns = pytest.mark.filterwarnings("ignore:.*always_return_as_numpy:FutureWarning")


def boxes(*corners: tuple[int, int, int, int], shape: tuple[int, int] = (20, 30)) -> Mask:
    """Draw boxes (top, bottom, left, right)."""
    drawn = np.zeros(shape, dtype=bool)
    for top, bottom, left, right in corners:
        drawn[top:bottom, left:right] = True
    return drawn


def discs(seed: int, n: int = 8, side: int = 64) -> Mask:
    """Draw discs, some of which the frame cuts."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:side, :side]
    centres = rng.uniform(0, side, (n, 2))
    return np.any([(rows - y) ** 2 + (columns - x) ** 2 < rng.uniform(9, 64) for y, x in centres], axis=0)


def blot(seed: int, side: int = 64) -> Mask:
    """Draw what is to be ignored: a corner, and a disc."""
    ignored = discs(seed, n=2, side=side)
    ignored[: side // 5, : side // 3] = True
    return ignored


def boundary(mask: Mask, ignore: Mask) -> list[tuple[int, int]]:
    """List the boundary by its definition, pixel by pixel."""
    height, width = mask.shape

    def ends_at(y: int, x: int) -> bool:
        inside = 0 <= y < height and 0 <= x < width
        return not inside or (not mask[y, x] and not ignore[y, x])

    return [
        (y, x)
        for y, x in np.argwhere(mask & ~ignore)
        if any(ends_at(y + down, x + right) for down, right in ((-1, 0), (1, 0), (0, -1), (0, 1)))
    ]


def distances(truth: Mask, prediction: Mask, ignore: Mask) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Measure every pair of boundary pixels, and give the smallest distance of each: from truth, from prediction."""
    table = cdist(boundary(truth, ignore), boundary(prediction, ignore))
    return table.min(axis=1), table.min(axis=0)


def monai_hausdorff95(truth: Mask, prediction: Mask) -> float:
    from monai.metrics.hausdorff_distance import compute_hausdorff_distance

    return float(
        compute_hausdorff_distance(prediction[None, None], truth[None, None], include_background=True, percentile=95)
    )


def test_the_distance_of_a_hand_drawn_pair_is_that_of_pen_and_paper() -> None:
    # a line of 11 pixels against its first 5: the other 6 are 1, 2, ... 6 away, and 95 % lie between 5 and 6
    truth, prediction = boxes((4, 5, 3, 14)), boxes((4, 5, 3, 8))

    assert hausdorff95(truth, prediction) == pytest.approx(5.5)
    assert hausdorff95(prediction, truth) == pytest.approx(5.5)


def test_the_f1_of_a_hand_drawn_pair_is_that_of_pen_and_paper() -> None:
    # of the line's 11 pixels 7 lie within 2 of the first 5, which all lie on the line
    truth, prediction = boxes((4, 5, 3, 14)), boxes((4, 5, 3, 8))
    recall, precision = 7 / 11, 1

    assert boundary_f1(truth, prediction) == pytest.approx(2 * precision * recall / (precision + recall))
    assert boundary_f1(truth, prediction, tolerance_px=0) == pytest.approx(2 * 5 / 11 / (1 + 5 / 11))


def test_the_tolerance_is_euclidean_and_inclusive() -> None:
    truth, diagonal = boxes((4, 5, 4, 5)), boxes((5, 6, 5, 6))

    assert boundary_f1(truth, diagonal, tolerance_px=1.4) == 0
    assert boundary_f1(truth, diagonal, tolerance_px=math.sqrt(2)) == 1
    assert boundary_f1(truth, boxes((4, 5, 6, 7))) == 1
    assert boundary_f1(truth, boxes((4, 5, 7, 8))) == 0


def test_the_inside_of_a_nucleus_is_no_boundary_but_a_hole_in_it_makes_one() -> None:
    truth, hollow = boxes((2, 15, 2, 15)), boxes((2, 15, 2, 15))
    hollow[8, 8] = False

    # the 4 pixels around the hole are 5 pixels from the outline; 48 pixels of outline in both
    assert boundary_f1(truth, hollow) == pytest.approx(2 * 48 / 52 / (1 + 48 / 52))
    assert hausdorff95(truth, hollow) == pytest.approx(np.percentile([0] * 48 + [5] * 4, 95))


@pytest.mark.parametrize("seed", range(4))
def test_both_agree_with_the_distances_of_all_pairs_of_boundary_pixels(seed: int) -> None:
    truth, prediction, ignore = discs(seed), discs(seed + 10), blot(seed + 20)
    from_truth, from_prediction = distances(truth, prediction, ignore)
    recall, precision = (from_truth <= 3).mean(), (from_prediction <= 3).mean()

    assert hausdorff95(truth, prediction, ignore) == pytest.approx(
        max(np.percentile(from_truth, 95), np.percentile(from_prediction, 95))
    )
    assert 0 < recall < 1
    assert boundary_f1(truth, prediction, ignore, tolerance_px=3) == pytest.approx(
        2 * precision * recall / (precision + recall)
    )


@monai_warns
@pytest.mark.parametrize("seed", range(4))
def test_the_distance_is_monais_where_nothing_is_ignored(seed: int) -> None:
    truth, prediction = discs(seed), discs(seed + 10)

    assert truth[[0, -1]].any() or truth[:, [0, -1]].any()
    assert hausdorff95(truth, prediction) == pytest.approx(monai_hausdorff95(truth, prediction), rel=1e-6)


@monai_warns
@pytest.mark.parametrize("shift", [1, 2, 3])
def test_the_f1_is_monais_surface_dice_where_precision_equals_recall(shift: int) -> None:
    from monai.metrics.surface_dice import compute_surface_dice

    half = np.pad(discs(shift, side=40), 6)
    truth = half | half[::-1, ::-1]  # a half turn about the middle takes the one onto the other, so both shares agree
    prediction = np.roll(truth, shift, axis=1)
    both = (torch.from_numpy(mask)[None, None] for mask in (prediction, truth))
    other = compute_surface_dice(*both, class_thresholds=[1.5], include_background=True)

    assert boundary_f1(truth, prediction, tolerance_px=1.5) == pytest.approx(float(other))


@pytest.mark.parametrize("seed", range(4))
def test_the_95_percent_distance_is_at_most_the_whole_one_of_scikit_image(seed: int) -> None:
    truth, prediction = discs(seed), discs(seed + 10)
    outlines = []
    for mask in (truth, prediction):
        outlines.append(np.zeros_like(mask))
        outlines[-1][tuple(np.transpose(boundary(mask, np.zeros_like(mask))))] = True

    assert 0 < hausdorff95(truth, prediction) <= hausdorff_distance(*outlines)


@pytest.mark.parametrize("seed", range(4))
def test_truth_and_prediction_may_change_places(seed: int) -> None:
    truth, prediction, ignore = discs(seed), discs(seed + 10), blot(seed + 20)

    assert hausdorff95(truth, prediction, ignore) == hausdorff95(prediction, truth, ignore)
    assert boundary_f1(truth, prediction, ignore) == boundary_f1(prediction, truth, ignore)


def test_the_frame_ends_a_nucleus_as_background_does() -> None:
    truth, prediction = boxes((0, 10, 0, 10)), boxes((1, 10, 1, 10))

    assert boundary_f1(truth, prediction, tolerance_px=0.5) == pytest.approx(
        boundary_f1(np.pad(truth, 1), np.pad(prediction, 1), tolerance_px=0.5)
    )
    assert hausdorff95(truth, np.ones_like(truth)) == hausdorff95(np.pad(truth, 1), np.pad(np.ones_like(truth), 1))


def test_the_line_where_ignored_pixels_cut_a_nucleus_is_no_boundary() -> None:
    # rows 2 to 7 count: 10 pixels above and 5 more on each side, none below
    truth, ignore = boxes((2, 15, 5, 15)), boxes((8, 20, 0, 30))
    # rows 2 to 4: 10 pixels above, 1 more on each side, 10 below
    prediction = boxes((2, 5, 5, 15))
    # within 1: above and on the sides 12, of those below the two at each end; above 10, on the sides rows 3 to 5
    precision, recall = (12 + 4) / 22, (10 + 6) / 20

    assert boundary_f1(truth, prediction, ignore, tolerance_px=1) == pytest.approx(
        2 * precision * recall / (precision + recall)
    )
    # from the truth: 14 pixels are in both, on each side one is 1 away, one 2 and one 3
    assert hausdorff95(truth, prediction, ignore) == pytest.approx(np.percentile([0] * 14 + [1, 1, 2, 2, 3, 3], 95))


@pytest.mark.parametrize("stop", [8, 9, 12, 20])
def test_where_a_nucleus_ends_within_ignored_pixels_does_not_matter(stop: int) -> None:
    ignore = boxes((8, 20, 0, 30))

    assert hausdorff95(boxes((2, 15, 5, 15)), boxes((2, stop, 5, 15)), ignore) == 0
    assert boundary_f1(boxes((2, 15, 5, 15)), boxes((2, stop, 5, 15)), ignore) == 1


def test_a_nucleus_that_looks_out_of_ignored_pixels_by_one_keeps_its_boundary() -> None:
    ignore = boxes((8, 20, 0, 30))

    assert hausdorff95(boxes((7, 15, 5, 15)), boxes((4, 15, 5, 15)), ignore) == 3
    assert boundary_f1(boxes((7, 15, 5, 15)), boxes((4, 15, 5, 15)), ignore) < 0.5


def test_a_nucleus_with_ignored_pixels_all_around_is_not_an_empty_mask() -> None:
    island = boxes((5, 8, 5, 8))
    truth, empty, ignore = np.ones_like(island), np.zeros_like(island), ~island

    assert hausdorff95(truth, truth, ignore) == 0
    assert boundary_f1(truth, truth, ignore) == 1
    assert hausdorff95(truth, empty, ignore) == pytest.approx(math.hypot(20, 30))
    assert boundary_f1(truth, empty, ignore) == 0


def test_one_empty_mask_costs_the_diagonal_that_is_given_or_that_of_the_arrays() -> None:
    full, empty = boxes((2, 5, 2, 5), shape=(6, 8)), np.zeros((6, 8), dtype=bool)

    assert hausdorff95(full, empty) == hausdorff95(empty, full) == 10
    assert hausdorff95(full, empty, diagonal_px=7.5) == 7.5
    assert hausdorff95(empty, empty, diagonal_px=7.5) == 0


@pytest.mark.parametrize("score", [hausdorff95, boundary_f1])
def test_masks_of_different_shapes_are_refused_by_name_and_shape(score) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(DataError, match=r"truth \(20, 30\), prediction \(19, 30\)"):
        score(boxes(), boxes()[1:])
    with pytest.raises(DataError, match=r"ignore \(20, 29\)"):
        score(boxes(), boxes(), boxes()[:, 1:])


@monai_warns
@pytest.mark.shared
def test_the_distance_is_monais_on_real_nuclei(shared: Path) -> None:
    file = shared / "data/nuinsseg/human pancreas/label masks modify/human_pancreas_01.tif"
    truth = tifffile.imread(file) > 0
    prediction = np.roll(truth, 3, axis=1)

    assert hausdorff95(truth, prediction) == pytest.approx(monai_hausdorff95(truth, prediction), rel=1e-6)
    assert hausdorff95(truth, prediction) == pytest.approx(3)
