import re

import numpy as np
from matplotlib.path import Path as Outline

from nucseg.figures import STEPS_PER_PX, outline_path


def polygons(data: str) -> list[np.ndarray]:
    """The corners of each polygon of a path, (P, 2) x and y in pixels from the image's top left corner."""
    found = []
    for one in filter(None, data.split("z")):
        numbers = [int(text) for text in re.findall(r"-?\d+", one)]
        found.append(np.cumsum(np.reshape(numbers, (-1, 2)), axis=0) / STEPS_PER_PX)
    return found


def test_an_outline_holds_the_middles_of_its_pixels_and_of_no_others() -> None:
    y, x = np.mgrid[:24, :30]
    instances = ((y - 11) ** 2 + (x - 14) ** 2 < 60).astype(np.int32)
    instances[2:5, 20:28] = 2
    middles = np.stack([x + 0.5, y + 0.5], axis=-1).reshape(-1, 2)

    inside = np.any(
        [Outline(polygon).contains_points(middles) for polygon in polygons(outline_path(instances))], axis=0
    )

    assert np.array_equal(inside.reshape(instances.shape), instances > 0)


def test_nuclei_that_touch_have_an_outline_each() -> None:
    instances = np.zeros((8, 12), np.int32)
    instances[2:6, 2:6], instances[2:6, 6:10] = 1, 2

    left, right = polygons(outline_path(instances))

    assert left[:, 0].max() == right[:, 0].min() == 6
    assert (left[:, 1].min(), left[:, 1].max()) == (2, 6)


def test_a_nucleus_at_the_border_stays_in_the_image() -> None:
    (polygon,) = polygons(outline_path(np.ones((5, 7), np.int32)))

    assert polygon.min(axis=0).tolist() == [0, 0]
    assert polygon.max(axis=0).tolist() == [7, 5]


def test_without_nuclei_there_is_no_path() -> None:
    assert outline_path(np.zeros((5, 5), np.int32)) == ""
