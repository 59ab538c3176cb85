"""A cut-out that is resampled is the cut-out of what is resampled."""

import numpy as np
import pytest
from PIL import Image

from nucseg.data.resampling import resampled

VALUES = np.random.default_rng(0).random((60, 8))


@pytest.mark.parametrize("step", [0.3, 1.0, 2.0, 3.7])
def test_a_part_of_an_axis_is_what_the_whole_gives_there(step: float) -> None:
    n = int(60 / step)
    whole = resampled(VALUES, 0.0, step, n, axis=0)
    first = n // 3
    from_ = int(first * step) - 2
    part = resampled(VALUES[max(from_, 0) :], first * step - max(from_, 0), step, 4, axis=0)
    np.testing.assert_allclose(part, whole[first : first + 4], atol=1e-12)


@pytest.mark.parametrize(("n", "filter_"), [(150, Image.Resampling.BILINEAR), (20, Image.Resampling.BOX)])
def test_a_whole_axis_is_what_pillow_makes_of_it(n: int, filter_: Image.Resampling) -> None:
    expected = Image.fromarray(VALUES.astype(np.float32)).resize((8, n), filter_)
    np.testing.assert_allclose(resampled(VALUES, 0.0, 60 / n, n, axis=0), np.asarray(expected), atol=1e-6)


def test_an_interval_that_reaches_beyond_the_end_is_the_mean_of_what_is_there() -> None:
    made = resampled(np.full((10, 1), 3.0), 0.0, 4.0, 3, axis=0)
    np.testing.assert_allclose(made, 3.0)
