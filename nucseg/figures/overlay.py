"""Images with outlines of nuclei: the truth, and what each run found, missed and added."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nucseg.errors import DataError
from nucseg.figures.nuclei import Image, draw_prediction, draw_truth, legend
from nucseg.figures.style import INK
from nucseg.metrics.instances import InstanceMap
from nucseg.metrics.overlap import Mask

CELL_IN = 1.7
"""Width of a panel in the table of `overlays`: four of them fill two columns of a journal."""
GAP_IN, TITLE_IN, LABEL_IN, REMARK_IN, LEGEND_IN = 0.05, 0.22, 0.36, 0.22, 0.22
"""Space between panels, above columns, to the left of rows, below a row with remarks, and for the legend."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Scene:
    """An image, its truth and the prediction of each run: one row of `overlays`.

    Shapes:
        image (H, W, 3) uint8 RGB; truth and each of predictions (H, W) instance maps; ignore (H, W)
    """

    label: str = ""
    image: Image
    truth: InstanceMap
    predictions: Mapping[str, InstanceMap]
    """Run name -> instance map; the same names in every scene of a figure."""
    ignore: Mask | None = None
    remarks: Mapping[str, str] = field(default_factory=dict)
    """Run name -> text below its panel, such as a score."""


def overlay(
    image: Image, truth: InstanceMap, predictions: Mapping[str, InstanceMap], ignore: Mask | None = None
) -> Figure:
    """Draw an image, its true nuclei, and the nuclei of each run with the differences filled, side by side.

    The arguments are those of `Scene`.

    Raises:
        DataError: their pixel grids differ.
    """
    return overlays([Scene(image=image, truth=truth, predictions=predictions, ignore=ignore)])


def overlays(scenes: Sequence[Scene]) -> Figure:
    """Draw scenes in rows, with columns for the image, its true nuclei, and each run with its differences.

    Raises:
        DataError: there are no scenes, their runs differ, or the layers of a scene differ in their pixel grids.
    """
    runs = _common_runs(scenes)
    titles = ("image", "truth", *runs)
    figure, table = _empty_table(scenes, len(titles))
    for scene, row in zip(scenes, table, strict=True):
        remarks = ("", "", *(scene.remarks.get(run, "") for run in runs))
        _draw_scene(scene, row)
        for axes, remark in zip(row, remarks, strict=True):
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
            axes.set_xlabel(remark, fontsize=8, color=INK, labelpad=2)
        row[0].set_ylabel(scene.label, fontsize=8, color=INK, labelpad=3)
    for axes, title in zip(table[0], titles, strict=True):
        axes.set_title(title, fontsize=9, pad=3)
    figure.legend(handles=legend(), loc="lower center", ncols=5, fontsize=8, frameon=False, borderaxespad=0)
    return figure


def _empty_table(scenes: Sequence[Scene], n_columns: int) -> tuple[Figure, list[list[Axes]]]:
    """Lay out axes with the images' proportions and the space that the texts need."""
    label = LABEL_IN if any(scene.label for scene in scenes) else 0.0
    under = REMARK_IN if any(scene.remarks for scene in scenes) else GAP_IN
    heights = [CELL_IN * scene.image.shape[0] / scene.image.shape[1] for scene in scenes]
    width_in = label + n_columns * CELL_IN + (n_columns - 1) * GAP_IN
    height_in = TITLE_IN + sum(heights) + under * len(scenes) + LEGEND_IN
    figure, table, bottom = Figure(figsize=(width_in, height_in)), [], height_in - TITLE_IN
    for height in heights:
        bottom -= height
        lefts = [label + column * (CELL_IN + GAP_IN) for column in range(n_columns)]
        size = (CELL_IN / width_in, height / height_in)
        table.append([figure.add_axes((left / width_in, bottom / height_in, *size)) for left in lefts])
        bottom -= under
    return figure, table


def _common_runs(scenes: Sequence[Scene]) -> tuple[str, ...]:
    names = {tuple(scene.predictions) for scene in scenes}
    if len(names) != 1:
        raise DataError(
            f"A table of overlays needs scenes with the same runs, got {len(scenes)} scenes with the runs "
            f"{sorted(names)}. Draw the others separately."
        )
    return names.pop()


def _draw_scene(scene: Scene, row: Sequence[Axes]) -> None:
    image, truth, predictions = scene.image, scene.truth, scene.predictions
    ignored = np.zeros(truth.shape, dtype=bool) if scene.ignore is None else scene.ignore
    for layer in (truth, ignored, *predictions.values()):
        if layer.shape != image.shape[:2]:
            raise DataError(
                f"All layers of an overlay must have the same pixel grid: the image covers {image.shape[:2]} pixels, "
                f"the truth {truth.shape}, the ignored part {ignored.shape}, the predictions "
                f"{[prediction.shape for prediction in predictions.values()]}. Resize them first."
            )
    row[0].imshow(image, interpolation="bilinear")
    draw_truth(row[1], image, truth, ignored, panel_in=CELL_IN)
    for axes, found in zip(row[2:], predictions.values(), strict=True):
        draw_prediction(axes, image, truth, found, ignored, panel_in=CELL_IN)
