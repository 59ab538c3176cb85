"""The charts of a report: SVG in the colours of the page, each with its numbers as tables."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
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
from nucseg_pipeline.report.summary import ConfigurationSummary, ReportSummary

MAX_CURVES = 8
"""More lines than this in one chart are hard to distinguish."""

BLACK = "#000000"
"""The default colour of matplotlib, and the last of the colour cycle."""


@dataclass(frozen=True)
class Numbers:
    """The numbers behind a chart."""

    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Chart:
    """A drawing in the page."""

    heading: str
    title: str
    alt: str
    drawing: Markup
    numbers: tuple[Numbers, ...]


def charts(summary: ReportSummary, columns: Sequence[RunScores], panels: Sequence[EmbeddingPanel] = ()) -> list[Chart]:
    """Draw the spread of scores over images, the calibration, the training curves, and the map of embeddings."""
    maps = [_embedding_map(panel, panel.means, len(panels) > 1) for panel in panels if panel.means is not None]
    return [_violin(columns), _reliability(summary), _curves(summary), *maps]


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
        "Foreground Dice per image. A dot is an image, the bar is the mean.",
        f"Violins of the foreground Dice per image. {ranges}",
        inline(violin(values), "violin"),
        (Numbers("Foreground Dice over the test images", head, rows),),
    )


def _reliability(summary: ReportSummary) -> Chart:
    drawn = summary.configurations[:MAX_CURVES]
    errors = "; ".join(f"{item.name}: {item.metrics['ece'].value:.3f}" for item in summary.configurations)
    repeats = " The predictions of repeats are counted together." if summary.repeated else ""
    return Chart(
        "Calibration",
        "Over all pixels: on the diagonal, predicted probabilities equal the observed share of nucleus pixels."
        f"{repeats}{_omitted(summary)}",
        f"Share of nucleus pixels against the predicted probability. Calibration errors: {errors}",
        inline(reliability_diagram({item.name: item.reliability for item in drawn}), "reliability"),
        tuple(_calibration_numbers(item) for item in drawn),
    )


def _calibration_numbers(configuration: ConfigurationSummary) -> Numbers:
    counts = configuration.reliability
    bins = zip(counts.n_pixels, counts.probability_sum, counts.n_nucleus_pixels, strict=True)
    width = 1 / len(counts.n_pixels)
    rows = tuple(
        (f"{i * width:.2f} to {(i + 1) * width:.2f}", f"{predicted / n:.3f}", f"{true / n:.3f}", f"{int(n):,}")
        for i, (n, predicted, true) in enumerate(bins)
        if n
    )
    head = ("probability", "mean predicted", "share of nucleus", "pixels")
    return Numbers(f"Calibration of {configuration.name}", head, rows)


def _omitted(summary: ReportSummary) -> str:
    n_omitted = len(summary.configurations) - MAX_CURVES
    return f" Only the first {MAX_CURVES} configurations are drawn, {n_omitted} are omitted." if n_omitted > 0 else ""


def _curves(summary: ReportSummary) -> Chart:
    """Draw the training of every run; of repeats, the first run of each configuration."""
    first = {configuration.runs[0] for configuration in summary.configurations[:MAX_CURVES]}
    histories = {run.name: run.history for run in summary.runs if run.name in first}
    best = "; ".join(
        f"{name}: best validation Dice {max(epoch.validation_dice for epoch in history):.3f}"
        for name, history in histories.items()
        if history
    )
    repeats = " Of repeats, the first run is drawn." if summary.repeated else ""
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
        "The dot marks the epoch with the highest validation Dice; the network of this epoch is scored."
        f"{repeats}{_omitted(summary)}",
        f"Training loss and validation Dice by epoch. {best}",
        inline(training_curves(histories), "training"),
        tables,
    )


def _embedding_map(panel: EmbeddingPanel, means: ImageMap, has_others: bool) -> Chart:
    n_unmarked = len(set(means.strata)) - len(marked_strata(means.strata))
    markers = f" Only the {len(MARKERS)} largest strata have their own marker." if n_unmarked > 0 else ""
    drawn = f" ({len(means.ids)} of {means.n_images}, drawn at random)" if len(means.ids) < means.n_images else ""
    both = 100 * sum(means.explained)
    rows = tuple(
        (image_id, stratum, *(f"{value:.3f}" for value in point))
        for image_id, stratum, point in zip(means.ids, means.strata, means.points.tolist(), strict=True)
    )
    encoder = f" Encoder: {panel.label}." + (f" It guides {', '.join(panel.names)}." if has_others else "")
    return Chart(
        "Embeddings",
        f"Each test image{drawn} by its mean embedding: images close to each other are similar to the encoder. The two "
        f"principal components explain {both:.0f} % of the variance between images.{markers}{encoder}",
        f"Test images on the first two principal components of their mean embeddings, which explain {both:.0f} % of "
        "the variance between images",
        inline(image_scatter(means.points, means.strata, means.explained), f"means-{'-'.join(panel.names)}"),
        (Numbers("Mean embedding of each image", ("image", "stratum", "component 1", "component 2"), rows),),
    )


def inline(figure: Figure, name: str) -> Markup:
    """An SVG element in the text colour of the page, readable on light and dark; its ids begin with `name`.

    Text is drawn as paths, so that a name cannot become an element of the page.
    """
    buffer = io.BytesIO()
    # a fixed salt and no date, so that the same figure gives the same bytes
    with mpl.rc_context({"svg.hashsalt": "nucseg", "svg.fonttype": "path"}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue().decode()
    element = text[text.index("<svg") :]
    element = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>|<style.*?</style>", "", element, flags=re.DOTALL)
    prefix = re.sub("[^a-zA-Z0-9]", "-", name)
    element = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}-", element)
    for ink in (INK, BLACK):
        element = re.sub(ink, "currentColor", element, flags=re.IGNORECASE)
    element = re.sub(GRID, "var(--grid)", element, flags=re.IGNORECASE)
    element = re.sub(r"\s*\n\s*", "\n", element)
    # presentation attributes cannot hold CSS variables, but matplotlib writes colours into style
    return Markup(element.replace("<svg", '<svg fill="currentColor" aria-hidden="true"', 1))  # noqa: S704
