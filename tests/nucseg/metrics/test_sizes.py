from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from nucseg.errors import ConfigError
from nucseg.metrics import Resampling, matched, overlaps, recall_by_size, size_edges

Counts = NDArray[np.float64]
Found = NDArray[np.bool_]


def counts(*values: float) -> Counts:
    return np.array(values, dtype=np.float64)


def found(*values: bool) -> Found:
    return np.array(values, dtype=bool)


def random_images(seed: int, n_images: int) -> tuple[list[Counts], list[Found]]:
    """Draw nuclei of which the large ones are found more often, with an image that has none."""
    rng = np.random.default_rng(seed)
    areas = [np.ceil(rng.gamma(2, 60, rng.integers(1, 30))) for _ in range(n_images - 1)] + [counts()]
    return areas, [rng.random(len(area)) < area / (area + 60) for area in areas]


def test_true_nuclei_are_matched_above_half_overlap_alone() -> None:
    truth, prediction = np.zeros((2, 6, 12), dtype=np.int32)
    truth[:2, :4], truth[:2, 6:10], truth[4:, :4] = 1, 2, 5
    prediction[:2, :3], prediction[:1, 6:10] = 3, 1  # 6 of 8 pixels; 4 of 8; nothing

    assert matched(overlaps(truth, prediction)).tolist() == [True, False, False]


@pytest.mark.parametrize("seed", range(5))
def test_quarters_hold_as_many_nuclei_as_ties_allow(seed: int) -> None:
    areas = np.random.default_rng(seed).permutation(1000)[:201] + 1.0
    edges = size_edges([areas[:90], areas[90:]])
    sizes = [((areas > low) & (areas <= high)).sum() for low, high in pairwise(edges)]

    assert len(sizes) == 4
    assert sum(sizes) == 201
    assert set(sizes) <= {50, 51}


@pytest.mark.parametrize(
    ("areas", "edges"),
    [
        ([], ()),
        ([counts(40, 10), counts(), counts(30, 20)], (0, 10, 20, 30, 40)),
        ([counts(), counts()], ()),
        ([counts(7)], (0, 7)),
        ([counts(7, 7, 7), counts(7, 7)], (0, 7)),
        ([counts(7, 9)], (0, 7, 9)),
        ([counts(5, 5, 5, 5, 5, 5, 6, 50)], (0, 5, 50)),
    ],
)
def test_ties_and_few_nuclei_give_fewer_bins_and_none_empty(areas: list[Counts], edges: tuple[float, ...]) -> None:
    assert size_edges(areas) == edges


def test_the_recall_of_hand_drawn_nuclei_is_that_of_pen_and_paper() -> None:
    areas = [counts(5, 20, 30), counts(), counts(10, 10, 25)]
    hits = [found(False, True, True), found(), np.array([0.5, 0, 1])]  # the second by one of two runs
    small, large = recall_by_size(areas, hits, (0, 10, 30))

    assert (small.low_px, small.high_px, small.n_nuclei) == (0, 10, 3)
    assert small.recall.value == pytest.approx(0.5 / 3)
    assert (large.low_px, large.high_px, large.n_nuclei) == (10, 30, 3)
    assert large.recall.value == 1
    assert (small.recall.n_images, small.recall.n_groups) == (3, 3)


def test_intervals_agree_with_scipys_bootstrap_of_the_groups() -> None:
    areas, hits = random_images(0, 40)
    groups = [f"slide-{position // 2}" for position in range(40)]
    edges = size_edges(areas)
    bins = recall_by_size(areas, hits, edges, groups)

    assert len(bins) == 4
    assert bins[0].recall.value < bins[3].recall.value - 0.2
    for size in bins:
        inside = [(area > size.low_px) & (area <= size.high_px) for area in areas]
        nuclei = np.array([mask.sum() for mask in inside]).reshape(-1, 2).sum(axis=1)
        matches = np.array([hit[mask].sum() for hit, mask in zip(hits, inside, strict=True)]).reshape(-1, 2).sum(axis=1)
        other = stats.bootstrap(
            (matches, nuclei),
            lambda s, n, axis=-1: s.sum(axis) / n.sum(axis),
            paired=True,
            n_resamples=10_000,
            method="percentile",
            rng=1,
        )
        assert size.recall.value == pytest.approx(matches.sum() / nuclei.sum())
        assert size.recall.n_groups == 20
        assert (size.recall.low, size.recall.high) == pytest.approx(
            (other.confidence_interval.low, other.confidence_interval.high), abs=0.01
        )


def test_resamples_without_a_nucleus_of_the_size_are_left_out() -> None:
    # 10 images, 2 of them with large nuclei: a tenth of the resamples has none
    areas = [counts(5)] * 8 + [counts(5, 50), counts(50, 50)]
    hits = [found(True)] * 8 + [found(True, True), found(False, False)]
    small, large = recall_by_size(areas, hits, (0, 5, 50), draws=Resampling(n_resamples=500))

    assert (small.recall.value, small.recall.low, small.recall.high) == (1, 1, 1)
    assert large.recall.value == pytest.approx(1 / 3)
    assert (large.recall.low, large.recall.high) == (0, 1)


def test_a_size_that_occurs_in_a_single_group_has_no_interval() -> None:
    areas, hits = [counts(5), counts(5, 50), counts(50)], [found(True), found(False, True), found(False)]
    small, large = recall_by_size(areas, hits, (0, 5, 50), ["a", "b", "b"], Resampling(n_resamples=200))

    assert (small.recall.low, small.recall.high) == (0, 1)
    assert (large.recall.value, large.recall.low, large.recall.high) == (0.5, None, None)


def test_sizes_without_a_nucleus_are_left_out() -> None:
    (small,) = recall_by_size([counts(5), counts(5)], [found(True), found(True)], (0, 10, 20))

    assert (small.low_px, small.high_px) == (0, 10)
    assert recall_by_size([counts()], [found()], ()) == ()


def test_nuclei_outside_the_edges_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"1 nuclei lie outside the edges \[0, 40\].*50"):
        recall_by_size([counts(5, 50)], [found(True, True)], (0, 40))
    with pytest.raises(ConfigError, match=r"outside the edges \[\]"):
        recall_by_size([counts(5)], [found(True)], ())


def test_areas_and_matches_of_different_nuclei_are_refused() -> None:
    with pytest.raises(ConfigError, match="got 2 areas in 1 images and 1 matches in 1"):
        recall_by_size([counts(5, 6)], [found(True)], (0, 40))


def test_no_image_at_all_is_an_error_and_not_a_number() -> None:
    with pytest.raises(ConfigError, match="no image"):
        recall_by_size([], [], (0, 40))
