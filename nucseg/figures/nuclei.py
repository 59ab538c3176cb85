"""Draw nuclei on their image: outlines, and the differences between a prediction and the truth."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgba
from matplotlib.patches import Patch
from matplotlib.patheffects import Normal, Stroke
from numpy.typing import NDArray

from nucseg.metrics.instances import InstanceMap
from nucseg.metrics.overlap import Mask
from nucseg.nuclei.polygons import outlines

Image = NDArray[np.uint8]

# distinct for any kind of colour vision (Okabe and Ito 2008), and from the pink and violet of H&E
TRUTH = "#F0E442"
"""Outline of a true nucleus."""
OUTLINE = "#FFFFFF"
"""Outline of a predicted nucleus."""
MISSED = "#56B4E9"
"""Nucleus only in the truth."""
EXTRA = "#E69F00"
"""Nucleus only in the prediction."""
IGNORED = "#7F7F7F"
"""Not scored."""
TISSUE = "#6A4A8C"

LINE_PER_IN = 0.3125
"""Width of an outline in points, per inch of the panel's width."""


def draw_truth(axes: Axes, image: Image, truth: InstanceMap, ignored: Mask, *, panel_in: float) -> None:
    """Draw the image with its true nuclei outlined, on a panel `panel_in` inches wide."""
    axes.imshow(image, interpolation="bilinear")
    _fill(axes, ignored, IGNORED)
    draw_outlines(axes, truth, TRUTH, panel_in=panel_in)


def draw_prediction(
    axes: Axes, image: Image, truth: InstanceMap, found: InstanceMap, ignored: Mask, *, panel_in: float
) -> None:
    """Draw the image with the predicted nuclei outlined, and missed and added pixels filled."""
    axes.imshow(image, interpolation="bilinear")
    _fill(axes, (truth > 0) & (found == 0) & ~ignored, MISSED)
    _fill(axes, (truth == 0) & (found > 0) & ~ignored, EXTRA)
    _fill(axes, ignored, IGNORED)
    draw_outlines(axes, found, OUTLINE, panel_in=panel_in)


def draw_outlines(axes: Axes, instances: InstanceMap, colour: str, *, panel_in: float) -> None:
    """Outline every nucleus separately, so that the border between two that touch is visible."""
    lines = [np.array(ring) - 0.5 for ring in outlines(instances)]  # in matplotlib, pixels are centred on integers
    width = LINE_PER_IN * panel_in
    # the dark rim keeps a light line visible on white tissue gaps
    rim = Stroke(linewidth=2.25 * width, foreground="#00000099")
    axes.add_collection(LineCollection(lines, colors=colour, linewidths=width, path_effects=[rim, Normal()]))


def legend() -> list[Patch]:
    """Return the legend of outlines and fills, for `Figure.legend`."""
    rim: dict[str, Any] = {"linewidth": 1.2, "path_effects": [Stroke(linewidth=2.8, foreground="#000000"), Normal()]}
    return [
        Patch(facecolor=TISSUE, edgecolor=TRUTH, label="true nucleus", **rim),
        Patch(facecolor=TISSUE, edgecolor=OUTLINE, label="predicted nucleus", **rim),
        Patch(facecolor=MISSED, label="missed"),
        Patch(facecolor=EXTRA, label="added"),
        Patch(facecolor=IGNORED, label="not counted"),
    ]


def _fill(axes: Axes, mask: Mask, colour: str) -> None:
    layer = np.zeros((*mask.shape, 4))
    layer[mask] = to_rgba(colour, alpha=0.7)
    axes.imshow(layer, interpolation="nearest")
