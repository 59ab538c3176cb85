import numpy as np
import pytest

from nucseg.errors import DataError
from nucseg.figures import guidance_effect

TRUTH = np.array([[1, 1, 0, 2, 2, 0, 3, 3]], np.int32)
GUIDED = np.array([[5, 5, 0, 0, 0, 7, 9, 9]], np.int32)
UNGUIDED = np.array([[0, 0, 0, 4, 4, 0, 6, 6]], np.int32)
NOTHING = np.zeros((1, 8), bool)


def test_guidance_helps_where_only_it_is_right_and_harms_where_only_it_is_wrong() -> None:
    effect = guidance_effect(TRUTH, GUIDED, UNGUIDED, NOTHING)

    assert effect.helped.tolist() == [[True, True, *[False] * 6]]
    assert effect.harmed.tolist() == [[False, False, False, True, True, True, False, False]]
    assert effect.gained.tolist() == [[1, 1, 0, 0, 0, 0, 0, 0]]
    assert effect.lost.tolist() == [[0, 0, 0, 2, 2, 0, 0, 0]]


def test_ignored_pixels_neither_help_nor_harm() -> None:
    ignore = NOTHING.copy()
    ignore[0, :4] = True
    effect = guidance_effect(TRUTH, GUIDED, UNGUIDED, ignore)

    assert not effect.helped.any()
    assert effect.harmed.tolist() == [[*[False] * 4, True, True, False, False]]
    assert not effect.gained.any()
    assert effect.lost.tolist() == [[0, 0, 0, 0, 2, 0, 0, 0]]


def test_maps_of_different_sizes_are_refused() -> None:
    with pytest.raises(DataError, match="different shapes"):
        guidance_effect(TRUTH, GUIDED[:, 1:], UNGUIDED, NOTHING)
