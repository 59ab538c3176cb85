import io

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from nucseg.errors import DataError
from nucseg.figures import FeaturePanel, feature_caption, feature_panels

CHECKS = np.indices((4, 4)).sum(0)[..., None] % 2 * np.ones(3)
SHARES = np.array([0.3, 0.12, 0.01])


def panel(title: str = "level", n_cells: int = 4) -> FeaturePanel:
    return FeaturePanel(title=title, rgb=np.kron(CHECKS, np.ones((n_cells // 4, 1, 1))), explained=SHARES)


def rendered(figure: Figure) -> np.ndarray:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    return np.asarray(Image.open(buffer).convert("RGB"))


def test_panels_have_a_letter_a_title_a_grid_and_the_explained_variance() -> None:
    picture = FeaturePanel(title="image", rgb=np.zeros((256, 205, 3), np.uint8))
    figure = feature_panels([picture, panel("embedding")])

    assert [axes.get_title().replace("\N{MULTIPLICATION SIGN}", "x") for axes in figure.axes] == [
        "(a) image\n256 x 205 px",
        "(b) embedding\n4 x 4, 43 %",
    ]


def test_the_caption_has_the_share_of_each_colour() -> None:
    assert (
        feature_caption([panel("level 1")]).replace("\N{MULTIPLICATION SIGN}", "x")
        == "(a) level 1, 4 x 4: 30.0 + 12.0 + 1.0 = 43.0 % of the variance"
    )


def test_cells_are_drawn_without_interpolation() -> None:
    """Nearest: on a black and white board nothing but the rim of a cell is grey."""
    pixels = rendered(feature_panels([panel()]))
    board = pixels[80:-20, 20:-20, 0].astype(float)

    assert ((board < 5) | (board > 250)).mean() > 0.97


@pytest.mark.parametrize(("n_panels", "table"), [(1, (1, 1)), (5, (1, 5)), (8, (2, 4)), (9, (2, 5)), (11, (3, 4))])
def test_rows_have_equal_length_and_are_legible(n_panels: int, table: tuple[int, int]) -> None:
    places = [axes.get_position() for axes in feature_panels([panel()] * n_panels).axes]

    assert len(places) == n_panels
    assert (len({round(place.y0, 6) for place in places}), len({round(place.x0, 6) for place in places})) == table


@pytest.mark.parametrize("title", ["level 1", "an encoder with a name that is far too long"])
@pytest.mark.parametrize("rgb", [np.zeros((51, 64, 3)), np.zeros((64, 51, 3))], ids=["wide", "tall"])
def test_texts_stay_in_the_figure_and_do_not_overlap(rgb: np.ndarray, title: str) -> None:
    figure = feature_panels([FeaturePanel(title=title, rgb=rgb, explained=SHARES)] * 9)
    figure.draw_without_rendering()
    boxes = [axes.title.get_window_extent() for axes in figure.axes]
    boxes += [axes.images[0].get_window_extent() for axes in figure.axes]

    for box in boxes:
        assert (min(box.x0, box.y0) > -0.5) & (box.x1 < figure.bbox.width + 0.5) & (box.y1 < figure.bbox.height + 0.5)
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[i + 1 :])


def test_true_nuclei_are_outlined_on_an_image() -> None:
    nucleus = np.zeros((64, 64), np.int32)
    nucleus[20:40, 20:40] = 1
    grey = np.full((64, 64, 3), 128, np.uint8)
    plain, outlined = (
        rendered(feature_panels([FeaturePanel(title="", rgb=grey, outlined=n)])).astype(int) for n in (None, nucleus)
    )

    # yellow: the blue channel falls below the others
    assert (plain[..., 0] - plain[..., 2]).max() < 30
    assert (outlined[..., 0] - outlined[..., 2]).max() > 100


@pytest.mark.parametrize("n_panels", [0, 27])
def test_the_number_of_panels_is_limited_by_the_letters(n_panels: int) -> None:
    with pytest.raises(DataError, match=f"got {n_panels}"):
        feature_panels([panel()] * n_panels)
