"""An instance map stitched from windows is the one obtained from the whole image at once."""

from itertools import pairwise

import numpy as np
import pytest
from scipy import ndimage

from nucseg.data.synthetic import synthetic_dataset
from nucseg.nuclei.instances import InstanceRule, separate
from nucseg.nuclei.stitching import BlockWindow, InstanceStitcher, NucleusMask, WindowNuclei, block_windows, stitch

RULE = InstanceRule(threshold=0.5, smoothing_px=1.0, min_distance_px=4, min_area_px=20)


def drawn_probability(side_px: int, seed: int = 0) -> np.ndarray:
    """A probability map like a network's, of a drawing with many touching nuclei."""
    sample, *_ = synthetic_dataset(1, side_px=side_px, seed=seed).entries[0].read()
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(side_px, side_px)), 3)
    return (ndimage.gaussian_filter((sample.instances > 0) * 1.0, 2) + 0.8 * noise).clip(0, 1).astype(np.float32)


def stitched(probability: np.ndarray, block: int, margin: int, shift: int = 0) -> tuple[np.ndarray, list[NucleusMask]]:
    def segment(rows: BlockWindow, columns: BlockWindow) -> WindowNuclei[NucleusMask]:
        window = probability[rows.window_start : rows.window_stop, columns.window_start : columns.window_stop]
        return WindowNuclei(separate(window, RULE), lambda nucleus: nucleus)

    bands = list(
        stitch(
            probability.shape, segment, block=(block, block + 17), margin=margin, min_area_px=RULE.min_area_px,
            shift=(shift, 2 * shift),
        )
    )  # fmt: skip
    numbered = [pair for band in bands for pair in band.nuclei]
    assert [number for number, _ in numbered] == list(range(1, len(numbered) + 1))
    return np.concatenate([band.instances for band in bands]), [nucleus for _, nucleus in numbered]


@pytest.fixture(scope="module")
def drawn() -> np.ndarray:
    return drawn_probability(640)


@pytest.mark.parametrize(("block", "shift"), [(640, 0), (200, 0), (200, 77), (131, 40)])
def test_the_blocks_change_nothing(drawn, block, shift) -> None:
    whole = separate(drawn, RULE)

    instances, nuclei = stitched(drawn, block, 100, shift)

    assert len(nuclei) == whole.max() > 200
    pairs = np.unique(np.stack([whole.ravel(), instances.ravel()]), axis=1)
    assert pairs.shape[1] == whole.max() + 1  # one to one: the same pixels under other numbers


def test_nuclei_are_numbered_by_the_rows_then_the_columns_of_their_centres(drawn) -> None:
    instances, nuclei = stitched(drawn, 200, 100)
    centres = np.array(ndimage.center_of_mass(instances > 0, instances, range(1, len(nuclei) + 1))) + 0.5

    np.testing.assert_allclose([nucleus.centre for nucleus in nuclei], centres)
    assert all(tuple(before) < tuple(after) for before, after in pairwise(centres))


def test_every_nucleus_has_the_pixels_that_its_mask_says(drawn) -> None:
    instances, nuclei = stitched(drawn, 131, 100, 40)
    for number, nucleus in enumerate(nuclei, start=1):
        np.testing.assert_array_equal(instances[nucleus.box] == number, nucleus.mask)
    assert (instances > 0).sum() == sum(nucleus.mask.sum() for nucleus in nuclei)


def test_what_is_larger_than_the_margin_is_cut_along_the_blocks_and_loses_nothing() -> None:
    probability = np.zeros((300, 300), np.float32)
    probability[20:280, 30:270] = 1

    def segment(rows: BlockWindow, columns: BlockWindow) -> WindowNuclei[NucleusMask]:
        window = probability[rows.window_start : rows.window_stop, columns.window_start : columns.window_stop]
        return WindowNuclei(ndimage.label(window)[0].astype(np.int32), lambda nucleus: nucleus)

    bands = list(stitch((300, 300), segment, block=(100, 100), margin=20))

    instances = np.concatenate([band.instances for band in bands])
    np.testing.assert_array_equal(instances > 0, probability > 0)
    assert instances.max() == 9
    assert all(len(np.unique(instances[y : y + 100, x : x + 100])) <= 2 for y in (0, 100, 200) for x in (0, 100, 200))


def test_a_pixel_stays_with_the_nucleus_that_came_first() -> None:
    stitcher = InstanceStitcher(20, 20)
    stitcher.extend_to(20)
    assert stitcher.add(NucleusMask(2, 2, np.ones((6, 6), bool)), 1) is not None
    second = stitcher.add(NucleusMask(2, 6, np.ones((6, 8), bool)), 1)
    assert stitcher.add(NucleusMask(2, 3, np.ones((6, 6), bool)), 1) is None  # nearly all of it is taken
    stitcher.number(["one", "two"], np.array([[5.0, 5.0], [5.0, 11.0]]))

    assert second is not None
    assert (second.x, second.mask.shape) == (8, (6, 6))
    (counts,) = [np.bincount(stitcher.pop_rows(20).ravel())]
    assert counts.tolist() == [400 - 72, 36, 36]


@pytest.mark.parametrize("shift", [0, 7, 30])
def test_blocks_divide_an_axis_and_windows_stay_within_it(shift) -> None:
    blocks = block_windows(100, 30, 10, shift)
    assert [block.start for block in blocks] == [0, *(block.stop for block in blocks[:-1])]
    assert blocks[-1].stop == 100
    assert all(block.window_start == max(block.start - 10, 0) for block in blocks)
    assert all(block.window_stop == min(block.stop + 10, 100) for block in blocks)
