"""A nucleus is measured as geometry and Beer and Lambert's law say."""

import numpy as np
import pytest
from skimage.color import hed2rgb

from nucseg.nuclei.measurements import measure
from nucseg.nuclei.stitching import NucleusMask


def ellipse(a: float, b: float) -> np.ndarray:
    reach = int(max(a, b)) + 1
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    mask = (x / a) ** 2 + (y / b) ** 2 <= 1
    return mask[mask.any(1)][:, mask.any(0)]


@pytest.mark.parametrize(("a", "b"), [(30, 30), (40, 20)])
def test_an_ellipse_has_the_area_perimeter_and_eccentricity_of_its_formulas(a, b) -> None:
    mask = ellipse(a, b)
    measured = measure(
        NucleusMask(100, 200, mask), np.full((*mask.shape, 3), 200, np.uint8), np.full(mask.shape, 0.7, np.float32)
    )

    angle = np.linspace(0, 2 * np.pi, 10_000)
    length = np.hypot(np.diff(a * np.cos(angle)), np.diff(b * np.sin(angle))).sum()
    assert measured.area == mask.sum() == pytest.approx(np.pi * a * b, rel=0.01)
    assert measured.perimeter == pytest.approx(length, rel=0.06)
    assert measured.eccentricity == pytest.approx(np.sqrt(1 - (b / a) ** 2), abs=0.02)
    assert (measured.centroid_x, measured.centroid_y) == (200 + mask.shape[1] / 2, 100 + mask.shape[0] / 2)
    assert measured.probability_mean == pytest.approx(0.7)


def test_stains_are_those_that_the_pixels_of_the_nucleus_were_coloured_with() -> None:
    mask = ellipse(6, 4)
    stains = np.zeros((*mask.shape, 3))
    stains[mask] = [0.12, 0.05, 0]
    stains[~mask] = [0, 0.3, 0]
    image = np.rint(hed2rgb(stains) * 255).astype(np.uint8)

    measured = measure(NucleusMask(0, 0, mask), image, np.ones(mask.shape, np.float32))

    assert measured.hematoxylin_od_mean == pytest.approx(6 * 0.12, abs=0.03)
    assert measured.eosin_od_mean == pytest.approx(6 * 0.05, abs=0.03)
