import numpy as np
import pytest

from nucseg.errors import DataError
from nucseg.figures import image_scatter, marked_strata
from nucseg.figures.scatter import MARKERS, OTHERS

POINTS = np.random.default_rng(0).normal(size=(9, 2))


def test_every_image_is_a_point_among_those_of_its_stratum() -> None:
    strata = ["colon", "liver", "colon", *["spleen"] * 6]
    figure = image_scatter(POINTS, strata, (0.5, 0.2))

    drawn = {group.get_label(): np.asarray(group.get_offsets()) for group in figure.axes[0].collections}
    for name in set(strata):
        assert np.array_equal(drawn[name], POINTS[[stratum == name for stratum in strata]])
    assert "50 % of the variance" in figure.axes[0].get_xlabel()
    assert len({group.get_paths()[0].vertices.tobytes() for group in figure.axes[0].collections}) == 3


def test_only_the_largest_strata_have_markers_and_the_rest_are_others() -> None:
    strata = [f"organ {number}" for number in range(8)] + ["organ 7"]
    marked = marked_strata(strata)
    drawn = {
        group.get_label(): len(group.get_offsets())
        for group in image_scatter(POINTS, strata, (0, 0)).axes[0].collections
    }

    assert len(marked) == len(MARKERS)
    assert "organ 7" in marked
    assert drawn[OTHERS] == 8 - len(MARKERS)
    assert sum(drawn.values()) == len(POINTS)


def test_a_point_without_a_stratum_is_refused() -> None:
    with pytest.raises(DataError, match="N strata"):
        image_scatter(POINTS, ["colon"], (0, 0))
