import re
from collections.abc import Iterator

import numpy as np
from matplotlib.path import Path

from nucseg.figures import outline_path


def polygons(data: str) -> list[np.ndarray]:
    """The corners of each polygon of a path, (P, 2) x and y in pixels from the image's top left corner."""
    return [np.array(list(corners(polygon))) for polygon in filter(None, data.split("z"))]


def corners(polygon: str) -> Iterator[tuple[int, int]]:
    x, y = map(int, re.match(r"M(\d+) (\d+)", polygon).groups())
    yield x, y
    for axis, step in re.findall(r"([hv])(-?\d+)", polygon):
        x, y = (x + int(step), y) if axis == "h" else (x, y + int(step))
        yield x, y


def test_an_outline_contains_the_centres_of_its_pixels_and_of_no_others() -> None:
    y, x = np.mgrid[:24, :30]
    instances = ((y - 11) ** 2 + (x - 14) ** 2 < 60).astype(np.int32)
    instances[10:12, 13:16] = 0  # a hole
    instances[2:5, 20:28] = 2
    instances[20, 20] = instances[21, 21] = 3  # two parts that touch at a corner
    centres = np.stack([x + 0.5, y + 0.5], axis=-1).reshape(-1, 2)

    n_around = sum(Path(polygon).contains_points(centres).astype(int) for polygon in polygons(outline_path(instances)))

    assert np.array_equal(n_around.reshape(instances.shape) % 2 == 1, instances > 0)


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
