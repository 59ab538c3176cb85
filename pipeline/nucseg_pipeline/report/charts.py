"""The charts of a report: drawings that take on the page's colours, each with its numbers as tables."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure

from nucseg.figures import image_scatter, marked_strata, reliability_diagram, training_curves, violin
from nucseg.figures.scatter import MARKERS
from nucseg.figures.style import GRID, INK
from nucseg_pipeline.evaluation.scores import RunScores
from nucseg_pipeline.formatting import number
from nucseg_pipeline.report.embedding_colours import EmbeddingPanel, ImageMap
from nucseg_pipeline.report.summary import ReportSummary

MOST_CURVES = 8
"""More lines than this in one chart cannot be told apart."""

BLACK = "#000000"
"""What matplotlib draws with unless told otherwise, and the last colour of the cycle."""


@dataclass(frozen=True)
class Numbers:
    """The numbers behind a chart."""

    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Chart:
    """A drawing inside the page."""

    heading: str
    title: str
    """What it shows, in a sentence or two."""
    alt: str
    drawing: Markup
    """An SVG element."""
    numbers: tuple[Numbers, ...]


def charts(findings: ReportSummary, columns: Sequence[RunScores], guides: Sequence[EmbeddingPanel] = ()) -> list[Chart]:
    """Draw how scores spread over images, how good probabilities are, how training went, and where images lie."""
    maps = [_means(guide, guide.means, len(guides) > 1) for guide in guides if guide.means is not None]
    return [_violin(columns), _reliability(findings), _curves(findings), *maps]


def _violin(columns: Sequence[RunScores]) -> Chart:
    values = {run.name: list(run.values("dice").values()) for run in columns}
    ranges = "; ".join(f"{name}: from {min(dice):.3f} to {max(dice):.3f}" for name, dice in values.items())
    rows = tuple(
        (name, *map(number, [np.mean(dice), np.std(dice), *np.percentile(dice, (0, 25, 50, 75, 100))]))
        for name, dice in values.items()
    )
    head = ("configuration", "mean", "SD", "lowest", "lower quartile", "median", "upper quartile", "highest")
    return Chart(
        "Dice over images",
        "Foreground Dice, image by image. A dot is an image, the bar their mean.",
        f"Violins of the foreground Dice per image. {ranges}",
        inline(violin(values), "violin"),
        (Numbers("Foreground Dice over the test images", head, rows),),
    )


def _reliability(findings: ReportSummary) -> Chart:
    drawn = findings.configurations[:MOST_CURVES]
    errors = "; ".join(f"{one.name}: {one.metrics['ece'].value:.3f}" for one in findings.configurations)
    which = " Of repeats all predictions are counted together." if findings.repeated else ""
    tables = []
    for one in drawn:
        counts = one.reliability
        rows = tuple(
            (f"{position / len(counts.n_pixels):.2f} to {(position + 1) / len(counts.n_pixels):.2f}",
             f"{predicted / n:.3f}", f"{true / n:.3f}", f"{int(n):,}")
            for position, (n, predicted, true) in enumerate(
                zip(counts.n_pixels, counts.probability_sum, counts.n_nucleus_pixels, strict=True)
            )
            if n
        )  # fmt: skip
        head = ("probability", "mean predicted", "share of nucleus", "pixels")
        tables.append(Numbers(f"Calibration of {one.name}", head, rows))
    return Chart(
        "Calibration",
        f"All pixels: a probability is right if it lies on the diagonal.{which}{_left_out(findings)}",
        f"Share of nucleus pixels against the predicted probability. Calibration errors: {errors}",
        inline(reliability_diagram({one.name: one.reliability for one in drawn}), "reliability"),
        tuple(tables),
    )


def _left_out(findings: ReportSummary) -> str:
    n_left_out = len(findings.configurations) - MOST_CURVES
    return f" The first {MOST_CURVES} configurations are drawn, {n_left_out} are not." if n_left_out > 0 else ""


def _curves(findings: ReportSummary) -> Chart:
    """Draw the training of every run; where there are repeats, of the first run of each configuration."""
    first = {one.runs[0] for one in findings.configurations[:MOST_CURVES]}
    histories = {run.name: run.history for run in findings.runs if run.name in first}
    best = "; ".join(
        f"{name}: best validation Dice {max(epoch.validation_dice for epoch in history):.3f}"
        for name, history in histories.items()
        if history
    )
    which = (" Of repeats the first run is drawn." if findings.repeated else "") + _left_out(findings)
    tables = tuple(
        Numbers(
            f"Training of {name}",
            ("epoch", "training loss", "validation Dice"),
            tuple((str(e.epoch), f"{e.train_loss:.4f}", f"{e.validation_dice:.4f}") for e in history),
        )
        for name, history in histories.items()
    )
    return Chart(
        "Training",
        f"The dot marks the epoch with the highest validation Dice, whose network was scored.{which}",
        f"Training loss and validation Dice by epoch. {best}",
        inline(training_curves(histories), "training"),
        tables,
    )


def _means(guide: EmbeddingPanel, means: ImageMap, is_one_of_several: bool) -> Chart:
    left = len(set(means.strata)) - len(marked_strata(means.strata))
    others = f" The {len(MARKERS)} largest strata have a marker of their own, {left} have not." if left > 0 else ""
    drawn = f", {len(means.ids)} of {means.n_images} drawn by chance" if len(means.ids) < means.n_images else ""
    both = 100 * sum(means.explained)
    rows = tuple(
        (one, stratum, *(f"{value:.3f}" for value in point))
        for one, stratum, point in zip(means.ids, means.strata, means.points.tolist(), strict=True)
    )
    which = f" Guides {', '.join(guide.names)}: {guide.label}." if is_one_of_several else f" Encoder: {guide.label}."
    return Chart(
        "Embeddings",
        f"Each test image by the mean of its embedding{drawn}: images that the encoder sees alike lie together. The "
        f"two components hold {both:.0f} % of the variance between images.{others}{which}",
        f"Test images on the first two principal components of their mean embeddings, which hold {both:.0f} % of the "
        "variance between images",
        inline(image_scatter(means.points, means.strata, means.explained), f"means-{'-'.join(guide.names)}"),
        (Numbers("Mean embedding of each image", ("image", "stratum", "component 1", "component 2"), rows),),
    )


def inline(figure: Figure, name: str) -> Markup:
    """An SVG element that takes its ink from the page, so that it is read on light and on dark; ids begin with `name`.

    Its texts are paths: a name in them cannot become an element of the page.
    """
    buffer = io.BytesIO()
    # a fixed salt and no date: the same figure gives the same bytes
    with mpl.rc_context({"svg.hashsalt": "nucseg", "svg.fonttype": "path"}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue().decode()
    element = text[text.index("<svg") :]
    element = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>|<style.*?</style>", "", element, flags=re.DOTALL)
    prefix = "".join(_id_letters(name))
    element = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}-", element)
    for ink in (INK, BLACK):
        element = re.sub(ink, "currentColor", element, flags=re.IGNORECASE)
    element = re.sub(GRID, "var(--grid)", element, flags=re.IGNORECASE)
    element = re.sub(r"\s*\n\s*", "\n", element)
    # a presentation attribute knows no variables: in matplotlib's SVG colours are in style
    return Markup(element.replace("<svg", '<svg fill="currentColor" aria-hidden="true"', 1))  # noqa: S704


def _id_letters(name: str) -> Iterator[str]:
    return (letter if letter.isascii() and letter.isalnum() else "-" for letter in name)
