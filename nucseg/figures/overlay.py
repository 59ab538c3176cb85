"""An image with the outlines of its nuclei: the truth, and what each run found, missed and added."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.patheffects import Normal, Stroke
from numpy.typing import NDArray
from skimage.measure import find_contours, regionprops

from nucseg.errors import DataError

Image = NDArray[np.uint8]
InstanceMap = NDArray[np.int32]
Mask = NDArray[np.bool_]

# Told apart with any kind of colour vision (Okabe and Ito 2008) and from the pink and violet of H&E
TRUTH = "#F0E442"
"""Outline of a true nucleus."""
OUTLINE = "#FFFFFF"
"""Outline of a predicted nucleus."""
MISSED = "#56B4E9"
"""Nucleus in the truth alone."""
EXTRA = "#E69F00"
"""Nucleus in the prediction alone."""
IGNORED = "#7F7F7F"
"""Neither counted for nor against."""
TISSUE = "#6A4A8C"

PANEL_IN = 2.56
"""Side of a panel in inches: at 100 dpi a 256 px image is drawn pixel by pixel."""


@dataclass(frozen=True, eq=False)
class Panels:
    """The panels of an overlay, each a figure of its own, without title and legend."""

    image: Figure
    truth: Figure
    predictions: dict[str, Figure]
    """Run name -> what it found, missed and added."""


def overlay(
    image: Image,
    truth: InstanceMap,
    predictions: Mapping[str, InstanceMap],
    ignore: Mask | None = None,
) -> Figure:
    """Draw an image, its true nuclei, and the nuclei of each run with the differences marked, side by side.

    Shapes:
        image (H, W, 3) uint8 RGB; truth and each of predictions (H, W) instance maps; ignore (H, W)

    Raises:
        DataError: one of them is on another pixel grid.
    """
    titles = ("image", "truth", *predictions)
    drawings = _drawings(image, truth, predictions, ignore)
    figure = Figure(figsize=(PANEL_IN * len(drawings), PANEL_IN + 0.6), layout="constrained")
    for axes, title, draw in zip(figure.subplots(1, len(drawings)), titles, drawings, strict=True):
        draw(axes)
        axes.set_axis_off()
        axes.set_title(title, fontsize=9)
    figure.legend(handles=_legend(), loc="outside lower center", ncols=5, fontsize=8, frameon=False)
    return figure


def panels(
    image: Image,
    truth: InstanceMap,
    predictions: Mapping[str, InstanceMap],
    ignore: Mask | None = None,
) -> Panels:
    """Draw the panels of `overlay` one by one, for a page on which they flow; takes and raises the same."""
    first, second, *others = (_bare(draw, image.shape) for draw in _drawings(image, truth, predictions, ignore))
    return Panels(image=first, truth=second, predictions=dict(zip(predictions, others, strict=True)))


def _bare(draw: Callable[[Axes], None], shape: tuple[int, ...]) -> Figure:
    figure = Figure(figsize=(PANEL_IN, PANEL_IN * shape[0] / shape[1]))
    axes = figure.add_axes((0, 0, 1, 1))
    draw(axes)
    axes.set_axis_off()
    return figure


def _drawings(
    image: Image, truth: InstanceMap, predictions: Mapping[str, InstanceMap], ignore: Mask | None
) -> list[Callable[[Axes], None]]:
    """List what draws each panel: the image, the truth, then every prediction."""
    ignored = np.zeros(truth.shape, dtype=bool) if ignore is None else ignore
    for layer in (truth, ignored, *predictions.values()):
        if layer.shape != image.shape[:2]:
            raise DataError(
                f"An overlay needs one pixel grid: the image covers {image.shape[:2]} pixels, the truth "
                f"{truth.shape}, the ignored part {ignored.shape}, the predictions "
                f"{[prediction.shape for prediction in predictions.values()]}. Resize them first."
            )
    return [
        partial(_draw_image, image=image),
        partial(_draw_truth, image=image, truth=truth, ignored=ignored),
        *(
            partial(_draw_prediction, image=image, truth=truth, found=found, ignored=ignored)
            for found in predictions.values()
        ),
    ]


def _draw_image(axes: Axes, image: Image) -> None:
    axes.imshow(image, interpolation="bilinear")


def _draw_truth(axes: Axes, image: Image, truth: InstanceMap, ignored: Mask) -> None:
    _draw_image(axes, image)
    _fill(axes, ignored, IGNORED)
    _outline(axes, truth, TRUTH)


def _draw_prediction(axes: Axes, image: Image, truth: InstanceMap, found: InstanceMap, ignored: Mask) -> None:
    _draw_image(axes, image)
    _fill(axes, (truth > 0) & (found == 0) & ~ignored, MISSED)
    _fill(axes, (truth == 0) & (found > 0) & ~ignored, EXTRA)
    _fill(axes, ignored, IGNORED)
    _outline(axes, found, OUTLINE)


def _fill(axes: Axes, mask: Mask, colour: str) -> None:
    layer = np.zeros((*mask.shape, 4))
    layer[mask] = to_rgba(colour, alpha=0.7)
    axes.imshow(layer, interpolation="nearest")


def _outline(axes: Axes, instances: InstanceMap, colour: str) -> None:
    """Outline every nucleus on its own, so that the border between two that touch is seen."""
    lines = [line for region in regionprops(instances) for line in _contours(region.image, region.bbox[:2])]
    # the dark rim keeps a light line visible on white tissue gaps
    rim = Stroke(linewidth=1.8, foreground="#00000099")
    axes.add_collection(LineCollection(lines, colors=colour, linewidths=0.8, path_effects=[rim, Normal()]))


def _contours(region: Mask, corner: tuple[int, int]) -> list[NDArray[np.float64]]:
    rows_columns = find_contours(np.pad(region, 1).astype(float), 0.5)
    return [(line - 1 + corner)[:, ::-1] for line in rows_columns]


def _legend() -> list[Patch]:
    return [
        Patch(facecolor=TISSUE, edgecolor=TRUTH, label="true nucleus"),
        Patch(facecolor=TISSUE, edgecolor=OUTLINE, label="predicted nucleus"),
        Patch(facecolor=MISSED, label="missed"),
        Patch(facecolor=EXTRA, label="added"),
        Patch(facecolor=IGNORED, label="not counted"),
    ]
