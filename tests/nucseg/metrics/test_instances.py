from pathlib import Path

import cellseg_metrics
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from nucseg.errors import DataError
from nucseg.metrics import aji, overlaps, panoptic_quality

InstanceMap = NDArray[np.int32]

EMPTY = np.zeros((6, 8), dtype=np.int32)


def nuclei(*boxes: tuple[int, int, int, int], shape: tuple[int, int] = (6, 8)) -> InstanceMap:
    """Draw boxes (top, bottom, left, right) as nuclei 1, 2, ..."""
    drawn = np.zeros(shape, dtype=np.int32)
    for number, (top, bottom, left, right) in enumerate(boxes, start=1):
        drawn[top:bottom, left:right] = number
    return drawn


def discs(seed: int, n: int = 25, side: int = 96) -> InstanceMap:
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:side, :side]
    drawn = np.zeros((side, side), dtype=np.int32)
    for number in range(1, n + 1):
        y, x, radius = *rng.uniform(0, side, 2), rng.uniform(4, 9)
        drawn[(rows - y) ** 2 + (columns - x) ** 2 < radius**2] = number
    return drawn


def kumar(truth: InstanceMap, prediction: InstanceMap) -> float:
    """Algorithm 1 of Kumar et al. 2017, mask by mask as it is printed."""
    shared, union, used = 0, 0, set()
    for i in np.unique(truth[truth > 0]):
        pairs = {j: ((truth == i) & (prediction == j), (truth == i) | (prediction == j)) for j in np.unique(prediction)}
        pairs.pop(0, None)
        ious = {j: both.sum() / either.sum() for j, (both, either) in pairs.items()}
        best = max(ious, key=ious.__getitem__)
        if ious[best] == 0:
            union += (truth == i).sum()
            continue
        shared, union = shared + pairs[best][0].sum(), union + pairs[best][1].sum()
        used.add(best)
    unused = set(np.unique(prediction)) - used - {0}
    return float(shared / (union + sum((prediction == j).sum() for j in unused)))


def test_a_pair_of_half_overlap_is_no_match() -> None:
    half = panoptic_quality(overlaps(nuclei((0, 2, 0, 4)), nuclei((0, 1, 0, 4))))
    more = panoptic_quality(overlaps(nuclei((0, 3, 0, 4)), nuclei((0, 2, 0, 4))))

    assert (half.dq, half.sq) == (0, 0)
    assert (more.dq, more.sq) == (1, pytest.approx(2 / 3))


@pytest.mark.parametrize("seed", range(4))
def test_panoptic_quality_agrees_with_cellseg_metrics(seed: int) -> None:
    truth, prediction = discs(seed), np.roll(discs(seed), 2, axis=1)
    other = cellseg_metrics.panoptic_quality(truth, prediction)
    quality = panoptic_quality(overlaps(truth, prediction))

    assert 0.1 < quality.pq < 0.95
    assert (quality.pq, quality.dq, quality.sq) == pytest.approx((other["pq"], other["dq"], other["sq"]), abs=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_aji_follows_the_algorithm_as_it_was_published(seed: int) -> None:
    truth, prediction = discs(seed), discs(seed + 100)

    assert aji(overlaps(truth, prediction)) == pytest.approx(kumar(truth, prediction))


def test_aji_takes_the_partner_of_highest_overlap_not_of_largest_intersection() -> None:
    truth = nuclei((0, 1, 0, 5))
    prediction = nuclei((0, 1, 0, 2), (0, 6, 2, 8))  # 2 of 5 shared; 3 shared, but with a giant of 36 pixels

    assert aji(overlaps(truth, prediction)) == pytest.approx(2 / (5 + 36))


def test_aji_takes_the_lowest_label_of_equal_partners() -> None:
    truth = nuclei((0, 1, 0, 6))
    small, large = (0, 1, 0, 2), (0, 2, 3, 6)  # 2 of 6 pixels in common, or 3 of 9: both have a Jaccard index of 1/3

    assert aji(overlaps(truth, nuclei(small, large))) == pytest.approx(2 / (6 + 6))
    assert aji(overlaps(truth, nuclei(large, small))) == pytest.approx(3 / (9 + 2))


def test_labels_may_skip_numbers_and_need_not_correspond() -> None:
    truth, prediction = discs(1), discs(2)
    renamed = np.where(prediction > 0, 60_000 - 7 * prediction, 0)

    assert aji(overlaps(truth, renamed)) == aji(overlaps(truth, prediction))
    assert panoptic_quality(overlaps(truth, renamed)) == panoptic_quality(overlaps(truth, prediction))


def test_maps_of_different_shapes_are_refused() -> None:
    with pytest.raises(DataError, match=r"prediction \(3, 8\)"):
        overlaps(EMPTY, EMPTY[:3])


@pytest.mark.shared
def test_scores_agree_with_cellseg_metrics_on_real_nuclei(shared: Path) -> None:
    file = shared / "data/nuinsseg/human pancreas/label masks modify/human_pancreas_01.tif"
    truth = tifffile.imread(file)[::2, ::2][:128, :128].astype(np.int32)
    prediction = np.roll(truth, 3, axis=1)
    found = overlaps(truth, prediction)

    assert panoptic_quality(found).pq == pytest.approx(
        cellseg_metrics.panoptic_quality(truth, prediction)["pq"], abs=1e-6
    )
    assert aji(found) == pytest.approx(kumar(truth, prediction))
