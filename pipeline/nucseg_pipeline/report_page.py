"""A report as one HTML file that needs no network: words, tables and pictures for people."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import matplotlib as mpl
import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure
from numpy.typing import NDArray

from nucseg.figures import EXTRA, IGNORED, MISSED, OUTLINE, TRUTH, panels, training_curves, violin
from nucseg_cache import SampleRow
from nucseg_pipeline.report_findings import Findings, RunFindings
from nucseg_pipeline.report_scores import ALL_BACKGROUND, METRICS, RunScores
from nucseg_pipeline.report_text import bounds, number, p_value, signed

PANEL_DPI = 180
"""Panels are 2.56 inches wide: 460 px on the page, enough for a sharp outline on a phone."""

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
    "dice_weighted": ("Dice, weighted", "background counts too, by its share of the image: not a headline"),
    "iou_weighted": ("IoU, weighted", "background counts too, by its share of the image: not a headline"),
}
"""Metric -> its name on the page and what it means."""


@dataclass(frozen=True, eq=False)
class Shown:
    """An image of the test part that the page shows."""

    sample: SampleRow
    why: str
    """Why this one: median, worst, best, or drawn by chance."""
    instances: Mapping[str, NDArray[np.int32]]
    """Run name -> (H, W) instance map."""


@dataclass(frozen=True)
class Picture:
    """A picture inside the page."""

    title: str
    alt: str
    uri: str


def page_text(findings: Findings, scores: Sequence[RunScores], shown: Sequence[Shown]) -> str:
    """Write the page: self-contained HTML with a table of every metric, pictures and what the figures rest on."""
    environment = Environment(
        loader=PackageLoader("nucseg_pipeline"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": number,
        "signed": signed,
        "bounds": bounds,
        "bounds_signed": partial(bounds, write=signed),
        "p_value": p_value,
    }
    return environment.get_template("report.html.j2").render(
        findings=findings,
        metrics=METRICS,
        words=WORDS,
        all_background=ALL_BACKGROUND,
        colours={"truth": TRUTH, "outline": OUTLINE, "missed": MISSED, "extra": EXTRA, "ignored": IGNORED},
        figures=[_violin(scores), _curves(findings)],
        shown=[_shown(one, scores) for one in shown],
        images=_image_rows(scores),
        settings=_settings(findings.runs),
        provenance=[(run.name, list(_flat(run.provenance))) for run in findings.runs],
    )


def _violin(scores: Sequence[RunScores]) -> Picture:
    values = {run.name: list(run.values("dice").values()) for run in scores}
    alt = "; ".join(f"{name}: from {min(dice):.3f} to {max(dice):.3f}" for name, dice in values.items())
    return Picture(
        "Foreground Dice, image by image. A dot is an image, the bar their mean.",
        f"Violins of the foreground Dice per image. {alt}",
        _svg(violin(values)),
    )


def _curves(findings: Findings) -> Picture:
    histories = {run.name: run.history for run in findings.runs}
    best = "; ".join(
        f"{name}: best validation Dice {max(epoch.validation_dice for epoch in history):.3f}"
        for name, history in histories.items()
        if history
    )
    return Picture(
        "Training. The dot marks the epoch with the highest validation Dice, whose network was scored.",
        f"Training loss and validation Dice by epoch. {best}",
        _svg(training_curves(histories)),
    )


def _shown(shown: Shown, scores: Sequence[RunScores]) -> dict[str, Any]:
    sample = shown.sample
    drawn = panels(sample.image, sample.instances, shown.instances, sample.ignore)
    by_run = {run.name: next(image for image in run.images if image.id == sample.id) for run in scores}
    return {
        "id": sample.id,
        "stratum": sample.stratum,
        "why": shown.why,
        "image": Picture("image", f"H&E image {sample.id}", _webp(drawn.image)),
        "truth": Picture("truth", f"true nuclei of {sample.id}, outlined", _webp(drawn.truth)),
        "n_true": by_run[scores[0].name].n_true,
        "predictions": [
            (Picture(name, f"nuclei that {name} finds in {sample.id}, outlined", _webp(figure)), by_run[name])
            for name, figure in drawn.predictions.items()
        ],
    }


def _image_rows(scores: Sequence[RunScores]) -> list[dict[str, Any]]:
    return [{"image": images[0], "scores": images} for images in zip(*(run.images for run in scores), strict=True)]


def _settings(runs: Sequence[RunFindings]) -> dict[str, list[tuple[str, list[Any]]]]:
    """Split the settings of the runs, name and one value a run, into those that differ and those that do not."""
    columns = [
        {"training images": run.n_train, "validation images": run.n_validation, **run.configuration, **run.rule}
        for run in runs
    ]
    rows = [(name, [column.get(name, "") for column in columns]) for name in columns[0]]
    differing = [row for row in rows if any(value != row[1][0] for value in row[1])]
    return {"differing": differing, "shared": [row for row in rows if row not in differing]}


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """List nested mappings as dotted names with their values."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        elif value not in ("", None):
            yield f"{prefix}{name}", value


def _svg(figure: Figure) -> str:
    # a fixed salt and no date: the same figure gives the same bytes
    with mpl.rc_context({"svg.hashsalt": "nucseg"}):
        return _uri(figure, "svg+xml", format="svg", metadata={"Date": None})


def _webp(figure: Figure) -> str:
    return _uri(figure, "webp", format="webp", dpi=PANEL_DPI, pil_kwargs={"quality": 80})


def _uri(figure: Figure, kind: str, **how: Any) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, **how)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
