"""The pictures of a report, made to lie inside the page."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from nucseg.figures import panels, reliability_diagram, training_curves, violin
from nucseg_pipeline.reporting.cases import Case
from nucseg_pipeline.reporting.findings import Findings
from nucseg_pipeline.reporting.scores import RunScores

PANEL_DPI = 180
"""Panels are 2.56 inches wide: 460 px on the page, enough for a sharp outline on a phone."""

MOST_CURVES = 8
"""More lines than this in one chart cannot be told apart."""


@dataclass(frozen=True, eq=False)
class Shown:
    """An image of the test part that the page shows."""

    case: Case
    why: str
    """Why this one: median, worst, best, or drawn by chance."""
    instances: Mapping[str, NDArray[np.int32]]
    """Name of the configuration -> (H, W) instance map."""
    scores: Mapping[str, RunScores]
    """Name of the configuration -> scores of the run whose prediction is shown: the first one, of repeats."""


@dataclass(frozen=True)
class Picture:
    """A picture inside the page."""

    title: str
    alt: str
    uri: str


def charts(findings: Findings, columns: Sequence[RunScores]) -> list[Picture]:
    """Draw how scores spread over images, how good probabilities are, and how training went."""
    return [_violin(columns), _reliability(findings), _curves(findings)]


def shown_image(shown: Shown) -> dict[str, Any]:
    """Draw one image: itself, its truth, and what a run of each configuration finds, with the scores of that run."""
    case = shown.case
    drawn = panels(case.image, case.instances, shown.instances, case.ignore)
    by_name = {
        name: (run.name, next(image for image in run.images if image.id == case.id))
        for name, run in shown.scores.items()
    }
    return {
        "id": case.id,
        "stratum": case.stratum,
        "why": shown.why,
        "image": Picture("image", f"H&E image {case.id}", _webp(drawn.image)),
        "truth": Picture("truth", f"true nuclei of {case.id}, outlined", _webp(drawn.truth)),
        "n_true": next(iter(by_name.values()))[1].n_true,
        "predictions": [
            (Picture(name, f"nuclei that {name} finds in {case.id}, outlined", _webp(figure)), *by_name[name])
            for name, figure in drawn.predictions.items()
        ],
    }


def _violin(scores: Sequence[RunScores]) -> Picture:
    values = {run.name: list(run.values("dice").values()) for run in scores}
    alt = "; ".join(f"{name}: from {min(dice):.3f} to {max(dice):.3f}" for name, dice in values.items())
    return Picture(
        "Foreground Dice, image by image. A dot is an image, the bar their mean.",
        f"Violins of the foreground Dice per image. {alt}",
        _svg(violin(values)),
    )


def _reliability(findings: Findings) -> Picture:
    drawn = findings.configurations[:MOST_CURVES]
    curves = {one.name: one.reliability for one in drawn}
    errors = "; ".join(f"{one.name}: {one.metrics['ece'].value:.3f}" for one in findings.configurations)
    which = " Of repeats all predictions are counted together." if findings.repeated else ""
    return Picture(
        f"Calibration, all pixels: a probability is right if it lies on the diagonal.{which}{_left_out(findings)}",
        f"Share of nucleus pixels against the predicted probability. Calibration errors: {errors}",
        _svg(reliability_diagram(curves)),
    )


def _left_out(findings: Findings) -> str:
    n_left_out = len(findings.configurations) - MOST_CURVES
    return f" The first {MOST_CURVES} configurations are drawn, {n_left_out} are not." if n_left_out > 0 else ""


def _curves(findings: Findings) -> Picture:
    """Draw the training of every run; where there are repeats, of the first run of each configuration."""
    first = {one.runs[0] for one in findings.configurations[:MOST_CURVES]}
    histories = {run.name: run.history for run in findings.runs if run.name in first}
    best = "; ".join(
        f"{name}: best validation Dice {max(epoch.validation_dice for epoch in history):.3f}"
        for name, history in histories.items()
        if history
    )
    which = (" Of repeats the first run is drawn." if findings.repeated else "") + _left_out(findings)
    return Picture(
        f"Training. The dot marks the epoch with the highest validation Dice, whose network was scored.{which}",
        f"Training loss and validation Dice by epoch. {best}",
        _svg(training_curves(histories)),
    )


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
