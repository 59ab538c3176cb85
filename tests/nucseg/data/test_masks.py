"""What the numbers in a mask mean."""

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from nucseg.data.masks import instances_from
from nucseg.errors import DataError

FILE = Path("masks/a.png")


def two_squares(first: int, second: int, dtype: type = np.uint8) -> np.ndarray:
    values = np.zeros((12, 12), dtype)
    values[1:4, 1:4] = first
    values[6:10, 6:10] = second
    return values


@pytest.mark.parametrize("values", [two_squares(1, 1), two_squares(255, 255), two_squares(1, 1, np.bool_)])
def test_the_components_of_a_binary_mask_are_numbered(values) -> None:
    instances = instances_from(values, FILE)

    expected, n = ndimage.label(values, structure=np.ones((3, 3)))
    assert n == 2
    np.testing.assert_array_equal(instances, expected)
    assert instances.dtype == np.int32


def test_nuclei_that_touch_at_a_corner_are_one_component() -> None:
    values = np.zeros((6, 6), np.uint8)
    values[:3, :3] = values[3:, 3:] = 255

    assert instances_from(values, FILE).max() == 1


@pytest.mark.parametrize(
    "values",
    [
        two_squares(3, 7),
        two_squares(1, 255),
        two_squares(7, 7),
        two_squares(1, 1, np.uint16),
        two_squares(255, 255, np.uint16),
        two_squares(900, 70_000, np.int64),
    ],
)
def test_an_instance_map_keeps_its_ids(values) -> None:
    instances = instances_from(values, FILE)

    np.testing.assert_array_equal(instances, values)
    assert instances.dtype == np.int32


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.bool_])
def test_a_mask_without_nuclei_is_all_background(dtype) -> None:
    assert not instances_from(np.zeros((5, 5), dtype), FILE).any()


@pytest.mark.parametrize("values", [two_squares(1, -4, np.int32), two_squares(1, 2**31, np.int64)])
def test_ids_out_of_range_are_refused(values) -> None:
    with pytest.raises(DataError, match=r"masks/a\.png has ids from"):
        instances_from(values, FILE)


def many_squares() -> np.ndarray:
    squares = np.zeros((10, 10), np.uint8)
    squares[2:7, 2:7] = 1
    return np.tile(squares, (6, 6))


def test_a_class_map_is_not_taken_for_instances() -> None:
    classes = many_squares()
    classes[:, 30:] *= 2

    with pytest.raises(DataError, match="2 different values form 36 separate pieces"):
        instances_from(classes, FILE)


def test_a_blurred_binary_mask_is_not_taken_for_instances() -> None:
    blurred = ndimage.gaussian_filter(many_squares() * 255.0, 1.5).astype(np.uint8)

    with pytest.raises(DataError, match="blurred"):
        instances_from(blurred, FILE)


def test_nuclei_cut_in_pieces_by_others_are_still_instances() -> None:
    values = np.zeros((40, 40), np.uint16)
    for id_ in range(1, 8):
        values[5 * id_ : 5 * id_ + 3] = id_
    values[:, 20:22] = 99

    np.testing.assert_array_equal(instances_from(values, FILE), values)
