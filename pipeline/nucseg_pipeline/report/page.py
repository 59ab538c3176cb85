"""A report as one HTML file that needs no network: words, tables and pictures for people."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nucseg.figures import EXTRA, HARMED, HELPED, IGNORED, MISSED, OUTLINE, TRUTH
from nucseg_pipeline.evaluation.scores import ALL_BACKGROUND, METRICS, RunScores
from nucseg_pipeline.evaluation.test_sets import BY_CHANCE
from nucseg_pipeline.report.charts import charts
from nucseg_pipeline.report.cross_dataset import MATRIX_METRICS, Matrix
from nucseg_pipeline.report.embedding_colours import EmbeddingPanel
from nucseg_pipeline.report.image_layers import Shown, shown_image
from nucseg_pipeline.report.image_table import PAGE_ROWS, image_data, image_rows
from nucseg_pipeline.report.summary import ReportSummary
from nucseg_pipeline.report.text import at_home
from nucseg_pipeline.templating import environment

WORDS = {
    "dice": ("Dice", "overlap of predicted and true nuclei, 2 |A and B| / (|A| + |B|)"),
    "iou": ("IoU", "overlap of predicted and true nuclei, |A and B| / |A or B|"),
    "miou": ("mIoU", "mean of the IoU of nuclei and of background"),
    "dice_pooled": ("Dice, pooled", "Dice of all pixels of the test part counted together"),
    "iou_pooled": ("IoU, pooled", "IoU of all pixels of the test part counted together"),
    "aji": ("AJI", "aggregated Jaccard index over nuclei: overlap, paid for missed and invented ones"),
    "pq": ("PQ", "panoptic quality: detection times segmentation quality"),
    "dq": ("DQ", "detection quality: F1 of nuclei found at IoU > 0.5"),
    "sq": ("SQ", "segmentation quality: mean IoU of the nuclei found"),
    "hd95": ("HD95, px", "95 % Hausdorff distance between the borders of predicted and true nuclei; less is better"),
    "boundary_f1": ("Boundary F1", "share of border pixels that lie within 2 px of a border of the other mask"),
    "brier": ("Brier score", "mean squared error of the nucleus probability, pixel by pixel; less is better"),
    "ece": (
        "Calibration error",
        "ECE, 15 bins: how far probabilities are from the share of nucleus pixels; less is better",
    ),
    "dice_weighted": ("Dice, weighted", "background counts too, by its share of the image: not a headline"),
    "iou_weighted": ("IoU, weighted", "background counts too, by its share of the image: not a headline"),
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
    """The images to show."""

    why: Mapping[str, str]
    """Id -> why this one, in the order in which they are shown."""
    guides: tuple[EmbeddingPanel, ...] = ()
    """The encoders that guide; empty where none does, or no image is shown."""
    unguided: Mapping[str, str] = field(default_factory=dict)
    """Name of a guided configuration -> the one without guidance that it is held against."""
    shown: Iterable[Shown] = ()
    """The images, one at a time: their maps take memory only while they are drawn."""


def page_text(findings: ReportSummary, columns: Sequence[RunScores], album: Gallery) -> str:
    """Write the page: self-contained HTML with a table of every metric, pictures and what the figures rest on.

    Args:
        findings: what is said.
        columns: the scores of each configuration, averaged over its runs.
        album: the images to show.
    """
    sheets = [shown_image(one) for one in album.shown]
    return (
        environment()
        .get_template("report.html.j2")
        .render(
            findings=findings,
            metrics=METRICS,
            words=WORDS,
            all_background=ALL_BACKGROUND,
            colours=COLOURS,
            charts=charts(findings, columns, album.guides),
            sheets=sheets,
            album=album,
            by_chance=BY_CHANCE,
            guided=_guided(findings),
            images=image_rows(columns, findings.baseline, sheets),
            page_rows=PAGE_ROWS,
            data=image_data(columns, findings.baseline, sheets, WORDS),
            settings=_settings(findings),
            provenance=[(run.name, list(_flat(run.provenance))) for run in findings.runs],
        )
    )


def matrix_page(told: Matrix) -> str:
    """Write the page that sets configurations against data sets; it leads to the page of each data set."""
    return (
        environment()
        .get_template("matrix.html.j2")
        .render(matrix=told, metrics=MATRIX_METRICS, words=WORDS, at_home=at_home, all_background=ALL_BACKGROUND)
    )


def _guided(findings: ReportSummary) -> dict[str, str]:
    """Name of a configuration -> its fusion in words."""
    fusions = {run.name: run.configuration.get("fusion", "none") for run in findings.runs}
    told = {one.name: fusions[one.runs[0]] for one in findings.configurations}
    return {name: "no guidance" if fusion == "none" else f"guided, {fusion}" for name, fusion in told.items()}


def _settings(findings: ReportSummary) -> dict[str, list[tuple[str, list[Any]]]]:
    """Split the settings, name and one value a configuration, into those that differ and those that do not."""
    runs = {
        run.name: {
            "training images": run.n_train,
            "validation images": run.n_validation,
            **run.configuration,
            **run.rule,
        }
        for run in findings.runs
    }
    columns = [[runs[name] for name in one.runs] for one in findings.configurations]
    rows = [(name, [_over_runs(name, column) for column in columns]) for name in columns[0][0]]
    differing = [row for row in rows if any(value != row[1][0] for value in row[1])]
    return {"differing": differing, "shared": [row for row in rows if row not in differing]}


def _over_runs(name: str, runs: Sequence[Mapping[str, Any]]) -> Any:
    """One value where all runs of a configuration have the same, else the values in words."""
    values = list(dict.fromkeys(run.get(name, "") for run in runs))
    return values[0] if len(values) == 1 else ", ".join(sorted(map(str, values)))


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """List nested mappings as dotted names with their values."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        elif value not in ("", None):
            yield f"{prefix}{name}", value
