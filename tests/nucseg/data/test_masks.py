"""What the numbers in a mask mean."""

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from nucseg.data.masks import MaskFacts, instances_from
from nucseg.errors import DataError

FILE = Path("masks/a.png")


def two_squares(first: int, second: int, dtype: type = np.uint8) -> np.ndarray:
    values = np.zeros((12, 12), dtype)
    values[1:4, 1:4] = first
    values[6:10, 6:10] = second
    return values


def ids_of(values: np.ndarray, **options: bool) -> np.ndarray:
    return instances_from(values, FILE, **options)[0]


PAIRS = [
    two_squares(1, 1),
    two_squares(255, 255),
    two_squares(1, 1, np.bool_),
    # StarDist issue 52 and Cellpose issue 1262: binary masks of other values and depths became one nucleus
    two_squares(7, 7),
    two_squares(128, 128),
    two_squares(1, 1, np.uint16),
    two_squares(255, 255, np.uint16),
    two_squares(65535, 65535, np.uint16),
    two_squares(1, 1, np.int32),
    two_squares(2**40, 2**40, np.int64),
]


@pytest.mark.parametrize("values", PAIRS)
def test_the_components_of_a_binary_mask_are_numbered_and_counted(values) -> None:
    instances, facts = instances_from(values, FILE)

    expected, n = ndimage.label(values, structure=np.ones((3, 3)))
    assert n == facts.n_pieces == 2
    np.testing.assert_array_equal(instances, expected)
    assert instances.dtype == np.int32


@pytest.mark.parametrize(("background", "nucleus"), [(1, 2), (2, 1), (128, 255), (255, 128)])
def test_the_more_frequent_of_two_other_values_is_the_background(background, nucleus) -> None:
    values = np.where(two_squares(1, 1) > 0, nucleus, background).astype(np.uint8)

    np.testing.assert_array_equal(ids_of(values), ids_of(two_squares(1, 1)))


def test_two_values_of_which_neither_is_clearly_the_background_are_refused() -> None:
    values = np.full((12, 12), 3, np.uint8)
    values[:, :5] = 9

    with pytest.raises(DataError, match=r"only the values 3 and 9, each on much of the image"):
        instances_from(values, FILE)


def test_nuclei_that_touch_at_a_corner_are_one_component() -> None:
    values = np.zeros((9, 9), np.uint8)
    values[:3, :3] = values[3:6, 3:6] = 255

    assert ids_of(values).max() == 1


@pytest.mark.parametrize("value", [7, 300, 65535])
def test_an_instance_map_of_one_nucleus_keeps_its_id(value) -> None:
    values = np.zeros((30, 30), np.uint16)
    values[5:15, 5:15] = value
    values[20, 20] = value  # a fleck is no second nucleus

    instances, facts = instances_from(values, FILE)

    np.testing.assert_array_equal(instances, values)
    assert facts == MaskFacts()


def test_one_nucleus_in_two_pieces_stays_one_where_instance_maps_are_guaranteed() -> None:
    values = two_squares(1, 1)

    np.testing.assert_array_equal(ids_of(values, instance_map=True), values)


@pytest.mark.parametrize("values", [two_squares(3, 7), two_squares(1, 255), two_squares(900, 70_000, np.int64)])
def test_an_instance_map_keeps_its_ids(values) -> None:
    instances = ids_of(values)

    np.testing.assert_array_equal(instances, values)
    assert instances.dtype == np.int32


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.bool_])
def test_a_mask_without_nuclei_is_all_background(dtype) -> None:
    assert not ids_of(np.zeros((5, 5), dtype)).any()


def test_negative_ids_are_refused() -> None:
    with pytest.raises(DataError, match=r"masks/a\.png has ids from -4 to 1"):
        instances_from(two_squares(1, -4, np.int32), FILE)


@pytest.mark.parametrize("dtype", [np.uint32, np.int64, np.uint64])
def test_large_ids_are_renumbered_in_their_order(dtype) -> None:
    # SciPy issue 13648 and CellProfiler issue 5113: an array as long as the largest id
    highest = np.iinfo(dtype).max
    places = two_squares(1, 2)
    places[10:, 10:] = 3

    instances = ids_of(np.array([0, highest, 7, 2_030_000_000], dtype)[places])

    np.testing.assert_array_equal(instances, np.array([0, 3, 1, 2])[places])


def test_renumbered_ids_without_background_start_at_1() -> None:
    values = np.arange(64, dtype=np.int64).reshape(8, 8) + 2**33

    np.testing.assert_array_equal(ids_of(values), np.arange(1, 65).reshape(8, 8))


def inverted(values: np.ndarray) -> np.ndarray:
    return np.where(values == 0, np.uint8(255), np.uint8(0))


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        # nnU-Net issue 1678 and ZeroCostDL4Mic issue 8: the background as a nucleus
        (inverted(two_squares(1, 1)), "seems to be inverted"),
        (inverted(two_squares(1, 1)) > 0, "seems to be inverted"),
        (np.where(two_squares(1, 2) == 0, 255, two_squares(1, 2)), "no pixel is 0"),
        (np.where(two_squares(1, 2) == 0, 65535, two_squares(1, 2, np.uint16)), "value 65535 on 83%"),
        (inverted(two_squares(1, 1)) * np.uint16(257), "seems to be inverted"),
        (np.full((9, 9), 7, np.uint8), "alpha channel or a palette"),
        (np.full((9, 9), 255, np.uint8), "value 255 on 100%"),
    ],
)
def test_a_value_on_most_of_the_image_is_refused_with_the_likely_reason(values, reason) -> None:
    with pytest.raises(DataError, match=reason):
        instances_from(values, FILE)


def test_void_around_nuclei_is_refused_and_one_large_value_is_noted() -> None:
    values = np.zeros((60, 60), np.uint8)
    for id_ in range(1, 5):
        values[12 * id_ - 6 : 12 * id_ + 4, 10:20] = 255
        values[12 * id_ - 4 : 12 * id_ + 2, 12:18] = id_

    with pytest.raises(DataError, match=r"255 in 4 pieces next to 4 other values: .* void"):
        instances_from(values, FILE)
    values[values == 255] = 0
    values[50:, 40:] = 255
    assert instances_from(values, FILE)[1].findings == {"void": "255 next to 4 others"}


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32])
@pytest.mark.parametrize("value", [2, 128, 200])
def test_nuclei_beside_a_large_clump_are_pieces_of_a_binary_mask(dtype, value) -> None:
    values = np.zeros((200, 200), dtype)
    values[:100, :100] = value
    for column in range(6):
        values[150:162, 30 * column : 30 * column + 12] = value

    assert instances_from(values, FILE)[1].n_pieces == 7


def test_an_inverted_mask_in_parts_is_refused_and_a_full_one_noted() -> None:
    values = np.full((100, 100), 255, np.uint8)
    values[49:51] = values[:, 49:51] = 0
    with pytest.raises(DataError, match=r"the pieces cover 96% of the image\. It seems to be inverted"):
        instances_from(values, FILE)

    values[:35] = 0
    assert instances_from(values, FILE)[1].findings == {"foreground": "62%"}


def test_a_third_of_the_image_as_one_nucleus_is_noted() -> None:
    values = np.zeros((12, 12), np.uint8)
    values[:5], values[8, 8] = 1, 2

    assert instances_from(values, FILE)[1].findings == {"cover": "42%"}


def classes(*n_nuclei: int) -> np.ndarray:
    """A class map with as many nuclei, of different sizes, of each class."""
    values = np.zeros((20 * len(n_nuclei), 40 * max(n_nuclei)), np.uint8)
    for row, n in enumerate(n_nuclei):
        for column in range(n):
            values[20 * row + 2 : 20 * row + 9, 40 * column + 2 : 40 * column + 8 + 4 * (column % 2)] = row + 1
    return values


@pytest.mark.parametrize("n_nuclei", [(3, 2), (4, 1), (2, 2), (5, 3, 1), (2, 2, 1, 1)])
def test_a_class_map_of_few_nuclei_is_not_taken_for_instances(n_nuclei) -> None:
    with pytest.raises(DataError, match=f"{len(n_nuclei)} different values form {sum(n_nuclei)} separate pieces"):
        instances_from(classes(*n_nuclei), FILE)


def test_ids_in_pieces_that_could_be_classes_are_noted() -> None:
    instances, facts = instances_from(classes(2, 1), FILE)

    assert facts.findings == {"split": "2 ids in 3 pieces"}
    np.testing.assert_array_equal(instances, classes(2, 1))


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

    np.testing.assert_array_equal(ids_of(values), values)
