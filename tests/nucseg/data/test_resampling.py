"""Resampling a part of an array equals that part of the resampled array."""

import numpy as np
import pytest
from PIL import Image

from nucseg.data.resampling import resampled

VALUES = np.random.default_rng(0).random((60, 8))


@pytest.mark.parametrize("step", [0.3, 1.0, 2.0, 3.7])
def test_a_part_of_an_axis_equals_that_part_of_the_whole(step) -> None:
    n = int(60 / step)
    whole = resampled(VALUES, 0.0, step, n, axis=0)
    first = n // 3
    from_ = int(first * step) - 2
    part = resampled(VALUES[max(from_, 0) :], first * step - max(from_, 0), step, 4, axis=0)
    np.testing.assert_allclose(part, whole[first : first + 4], atol=1e-12)


@pytest.mark.parametrize(("n", "filter_"), [(150, Image.Resampling.BILINEAR), (20, Image.Resampling.BOX)])
def test_a_whole_axis_equals_pillows(n, filter_) -> None:
    expected = Image.fromarray(VALUES.astype(np.float32)).resize((8, n), filter_)
    np.testing.assert_allclose(resampled(VALUES, 0.0, 60 / n, n, axis=0), np.asarray(expected), atol=1e-6)


def test_an_interval_that_extends_beyond_the_end_is_the_mean_of_its_pixels() -> None:
    resized = resampled(np.full((10, 1), 3.0), 0.0, 4.0, 3, axis=0)
    np.testing.assert_allclose(resized, 3.0)
