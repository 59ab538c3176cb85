"""A report as one self-contained HTML file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nucseg.figures import EXTRA, HARMED, HELPED, IGNORED, MISSED, OUTLINE, TRUTH
from nucseg_pipeline.evaluation.scores import ALL_BACKGROUND, METRICS, RunScores
from nucseg_pipeline.evaluation.test_sets import RANDOM
from nucseg_pipeline.report.charts import charts
from nucseg_pipeline.report.cross_dataset import MATRIX_METRICS, Matrix
from nucseg_pipeline.report.embedding_colours import EmbeddingPanel
from nucseg_pipeline.report.image_layers import GalleryImage, image_layers
from nucseg_pipeline.report.image_table import PAGE_ROWS, image_data, image_rows
from nucseg_pipeline.report.summary import ReportSummary
from nucseg_pipeline.templating import render

WORDS = {
    "dice": ("Dice", "overlap of predicted and true nuclei, 2 |A and B| / (|A| + |B|)"),
    "iou": ("IoU", "overlap of predicted and true nuclei, |A and B| / |A or B|"),
    "miou": ("mIoU", "mean of the IoU of nuclei and of background"),
    "dice_pooled": ("Dice, pooled", "Dice of all pixels of the test images counted together"),
    "iou_pooled": ("IoU, pooled", "IoU of all pixels of the test images counted together"),
    "aji": ("AJI", "aggregated Jaccard index over nuclei, penalised for false negatives and false positives"),
    "pq": ("PQ", "panoptic quality: detection times segmentation quality"),
    "dq": ("DQ", "detection quality: F1 of nuclei found at IoU > 0.5"),
    "sq": ("SQ", "segmentation quality: mean IoU of the nuclei found"),
    "hd95": ("HD95, px", "95 % Hausdorff distance between the borders of predicted and true nuclei; lower is better"),
    "boundary_f1": ("Boundary F1", "F1 of border pixels that lie within 2 px of a border of the other mask"),
    "brier": ("Brier score", "mean squared error of the nucleus probability over pixels; lower is better"),
    "ece": (
        "Calibration error",
        "ECE, 15 bins: difference of predicted probability and share of nucleus pixels; lower is better",
    ),
    "dice_weighted": (
        "Dice, weighted",
        "also counts background, weighted by its share of the image: do not rank by it",
    ),
    "iou_weighted": ("IoU, weighted", "also counts background, weighted by its share of the image: do not rank by it"),
}
"""Metric -> its name on the page and what it means."""

COLOURS = {
    "truth": TRUTH,
    "outline": OUTLINE,
    "missed": MISSED,
    "extra": EXTRA,
    "ignored": IGNORED,
    "helped": HELPED,
    "harmed": HARMED,
}


@dataclass(frozen=True, eq=False)
class Gallery:
    """The images that the page shows."""

    panels: tuple[EmbeddingPanel, ...] = ()
    """The encoders that guide configurations; empty if none does, or no image is shown."""
    unguided: Mapping[str, str] = field(default_factory=dict)
    images: Iterable[GalleryImage] = ()
    """The images, made one at a time, because their maps take memory."""


def page_text(summary: ReportSummary, columns: Sequence[RunScores], gallery: Gallery) -> str:
    """Write the page: self-contained HTML with a table of every metric, pictures, charts and provenance.

    `columns` are the scores of each configuration, averaged over its runs.
    """
    pictures = [image_layers(image) for image in gallery.images]
    return render(
        "report.html.j2",
        summary=summary,
        metrics=METRICS,
        words=WORDS,
        all_background=ALL_BACKGROUND,
        colours=COLOURS,
        charts=charts(summary, columns, gallery.panels),
        pictures=pictures,
        gallery=gallery,
        random=RANDOM,
        guidance=_guidance(summary),
        images=image_rows(columns, summary.baseline, pictures),
        page_rows=PAGE_ROWS,
        data=image_data(columns, summary.baseline, pictures, WORDS),
        settings=_settings(summary),
        provenance=[(run.name, list(_flat(run.provenance))) for run in summary.runs],
    )


def matrix_page(matrix: Matrix) -> str:
    """Write the page of several data sets, which links to the page of each of them."""
    return render("matrix.html.j2", matrix=matrix, metrics=MATRIX_METRICS, words=WORDS, all_background=ALL_BACKGROUND)


def _guidance(summary: ReportSummary) -> dict[str, str]:
    """Name of a configuration -> its fusion in words."""
    fusions = {run.name: run.configuration.get("fusion", "none") for run in summary.runs}
    by_name = {configuration.name: fusions[configuration.runs[0]] for configuration in summary.configurations}
    return {name: "no guidance" if fusion == "none" else f"guided, {fusion}" for name, fusion in by_name.items()}


def _settings(summary: ReportSummary) -> dict[str, list[tuple[str, list[Any]]]]:
    """Split the settings, a name and a value for each configuration, into those that differ and those that do not."""
    runs = {
        run.name: {
            "training images": run.n_train,
            "validation images": run.n_validation,
            **run.configuration,
            **run.rule,
        }
        for run in summary.runs
    }
    columns = [[runs[name] for name in configuration.runs] for configuration in summary.configurations]
    rows = [(name, [_over_runs(name, column) for column in columns]) for name in columns[0][0]]
    differing = [row for row in rows if any(value != row[1][0] for value in row[1])]
    return {"differing": differing, "shared": [row for row in rows if row not in differing]}


def _over_runs(name: str, runs: Sequence[Mapping[str, Any]]) -> Any:
    """The value if all runs of a configuration have the same, else all values in words."""
    values = list(dict.fromkeys(run.get(name, "") for run in runs))
    return values[0] if len(values) == 1 else ", ".join(sorted(map(str, values)))


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """List nested mappings as dotted names with their values."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        elif value not in ("", None):
            yield f"{prefix}{name}", value
