import math
from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

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
