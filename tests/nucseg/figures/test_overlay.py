import io
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from nucseg.errors import DataError
from nucseg.figures import EXTRA, IGNORED, MISSED, OUTLINE, TRUTH, Scene, overlay, overlays
from nucseg.figures.nuclei import draw_prediction, draw_truth

SIDE = 64
GREY = np.full((SIDE, SIDE, 3), 128, dtype=np.uint8)


def box(top: int, bottom: int, left: int, right: int, number: int = 1) -> NDArray[np.int32]:
    drawn = np.zeros((SIDE, SIDE), dtype=np.int32)
    drawn[top:bottom, left:right] = number
    return drawn


def truth_panel(truth: NDArray[np.int32], dpi: int = 200) -> NDArray[np.float64]:
    return rendered(partial(draw_truth, truth=truth, ignored=truth < 0), dpi)


def prediction_panel(
    truth: NDArray[np.int32], found: NDArray[np.int32], ignored: NDArray[np.bool_] | None = None
) -> NDArray[np.float64]:
    ignored = truth < 0 if ignored is None else ignored
    return rendered(partial(draw_prediction, truth=truth, found=found, ignored=ignored))


def rendered(draw: Callable[..., None], dpi: int = 200) -> NDArray[np.float64]:
    """Draw a panel alone and return its colours (side, side, 3) in [0, 1]."""
    figure, buffer = Figure(figsize=(2.56, 2.56)), io.BytesIO()
    axes = figure.add_axes((0, 0, 1, 1))
    draw(axes, image=GREY, panel_in=2.56)
    axes.set_axis_off()
    figure.savefig(buffer, format="png", dpi=dpi)
    return np.asarray(Image.open(buffer).convert("RGB")) / 255


def at(rendered: NDArray[np.float64], row: float, column: float) -> NDArray[np.float64]:
    """Look up the colour in the middle of a pixel of the image."""
    scale = rendered.shape[0] / SIDE
    return rendered[int((row + 0.5) * scale), int((column + 0.5) * scale)]


def mixed(colour: str) -> NDArray[np.float64]:
    return 0.7 * np.array(to_rgb(colour)) + 0.3 * 128 / 255


def has_line(rendered: NDArray[np.float64], colour: str) -> bool:
    return bool((np.abs(rendered - to_rgb(colour)).max(axis=2) < 0.03).any())


def test_missed_and_added_pixels_are_marked_and_agreement_is_not() -> None:
    truth, found = box(10, 40, 10, 30), box(10, 40, 20, 50)
    panel = prediction_panel(truth, found)

    np.testing.assert_allclose(at(panel, 25, 14), mixed(MISSED), atol=0.03)
    np.testing.assert_allclose(at(panel, 25, 42), mixed(EXTRA), atol=0.03)
    np.testing.assert_allclose(at(panel, 25, 25), 128 / 255, atol=0.03)
    np.testing.assert_allclose(at(panel, 55, 55), 128 / 255, atol=0.03)


def test_differences_in_ignored_pixels_are_grey_instead() -> None:
    ignore = box(0, SIDE, 0, 32) > 0
    panel = prediction_panel(box(10, 40, 5, 25), box(10, 40, 40, 60), ignore)

    np.testing.assert_allclose(at(panel, 25, 15), mixed(IGNORED), atol=0.03)
    np.testing.assert_allclose(at(panel, 25, 50), mixed(EXTRA), atol=0.03)


def test_truth_and_prediction_are_outlined_in_their_own_colours() -> None:
    nucleus = box(20, 44, 20, 44)
    truth, prediction = truth_panel(nucleus), prediction_panel(nucleus, nucleus)

    assert has_line(truth, TRUTH)
    assert not has_line(truth, OUTLINE)
    assert has_line(prediction, OUTLINE)
    assert not has_line(prediction, TRUTH)


def test_the_border_between_two_touching_nuclei_is_drawn() -> None:
    merged, touching = box(20, 44, 10, 54), box(20, 44, 10, 32) + box(20, 44, 32, 54, number=2)
    # where the two meet, away from the upper and the lower edge; 8 rendered pixels a pixel
    without, with_border = (truth_panel(truth)[200:300, 240:272] for truth in (merged, touching))

    assert not has_line(without, TRUTH)
    assert has_line(with_border, TRUTH)


def test_the_outline_runs_where_the_nucleus_ends() -> None:
    panel = truth_panel(box(16, 48, 16, 48), dpi=400)
    rows, columns = np.nonzero(np.abs(panel - to_rgb(TRUTH)).max(axis=2) < 0.2)
    ends = np.array([rows.min(), rows.max(), columns.min(), columns.max()]) * SIDE / panel.shape[0]

    np.testing.assert_allclose(ends, [16, 48, 16, 48], atol=0.5)


def test_an_overlay_has_a_panel_for_image_truth_and_every_run_and_a_legend() -> None:
    figure = overlay(GREY, box(1, 9, 1, 9), {"guided": box(1, 9, 1, 9), "unguided": box(2, 9, 1, 9)})

    assert [axes.get_title() for axes in figure.axes] == ["image", "truth", "guided", "unguided"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "true nucleus",
        "predicted nucleus",
        "missed",
        "added",
        "not counted",
    ]


def test_an_image_without_nuclei_can_be_drawn() -> None:
    nothing = np.zeros((SIDE, SIDE), dtype=np.int32)

    np.testing.assert_allclose(prediction_panel(nothing, nothing), 128 / 255, atol=0.01)


def test_layers_with_different_grids_are_refused() -> None:
    with pytest.raises(DataError, match=r"image covers \(64, 64\).*\(32, 32\)"):
        overlay(GREY, box(1, 9, 1, 9), {"run": np.zeros((32, 32), dtype=np.int32)})


def scene(*runs: str, height: int = SIDE, **more: object) -> Scene:
    nucleus = box(9, 25, 9, 25)[:height]
    return Scene(image=GREY[:height], truth=nucleus, predictions=dict.fromkeys(runs, nucleus), **more)


def test_a_table_has_a_row_per_scene_with_its_label_and_remarks() -> None:
    first = scene("guided", "plain", label="one\nworst", remarks={"guided": "Dice 0.900"})
    axes = overlays([first, scene("guided", "plain", label="two", height=32)]).axes

    assert [cell.get_title() for cell in axes] == ["image", "truth", "guided", "plain", "", "", "", ""]
    assert [cell.get_ylabel() for cell in axes[::4]] == ["one\nworst", "two"]
    assert [cell.get_xlabel() for cell in axes[:4]] == ["", "", "Dice 0.900", ""]
    assert [cell.images[0].get_array().shape[0] for cell in axes[::4]] == [64, 32]


@pytest.mark.parametrize("label", ["", "an image\nmedian"])
def test_texts_of_a_table_stay_in_the_figure_and_off_the_images(label: str) -> None:
    remarks = {"guided": "Dice 0.900"} if label else {}
    figure = overlays([scene("guided", "plain", label=label, remarks=remarks, height=h) for h in (64, 32)])
    figure.draw_without_rendering()
    texts = [text for axes in figure.axes for text in (axes.title, axes.xaxis.label, axes.yaxis.label)]
    boxes = [text.get_window_extent() for text in texts if text.get_text()] + [figure.legends[0].get_window_extent()]
    pictures = [axes.get_window_extent() for axes in figure.axes]

    for text in boxes:
        assert (min(text.x0, text.y0) > -0.5) & (text.x1 < figure.bbox.x1 + 0.5) & (text.y1 < figure.bbox.y1 + 0.5)
        assert not any(text.overlaps(other) for other in pictures)


@pytest.mark.parametrize("scenes", [[], [scene("guided"), scene("plain")]])
def test_scenes_with_different_runs_are_refused(scenes: list[Scene]) -> None:
    with pytest.raises(DataError, match=f"got {len(scenes)} scenes"):
        overlays(scenes)
