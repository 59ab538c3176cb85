"""Figures: errors as bars, and true and replayed embeddings as colours."""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from nucseg.figures import ErrorBars, FeaturePanel, PrincipalColours, feature_panels, fidelity_bars
from nucseg.metrics.statistics import Interval
from nucseg.replay.fidelity import of_image
from nucseg_pipeline.fidelity.native_images import Image, moved_native
from nucseg_pipeline.fidelity.references import (
    CACHED,
    UNMOVED,
    VIEWS,
    ColourResult,
    ImageEmbeddings,
    MotionResult,
    ReplayParameters,
)
from nucseg_pipeline.fidelity.results import Scores
from nucseg_pipeline.fidelity.text import FidelityReport

BARS_DPI, EXAMPLE_DPI = 120, 96
"""Sufficient for a page of documentation, with small files."""

CHANNEL_MEANS, LIMIT = "no better than channel means", "limit of the recommendation"
"""What the vertical lines of the bars mean."""


def bars(report: FidelityReport) -> bytes:
    """The errors of all motions and replays, and of all changes of colour, as a PNG."""
    panels = [
        ErrorBars(_errors(report.lines), "error of the replayed embedding (0: the true one)", 1, CHANNEL_MEANS),
    ]
    if report.colour_choice is not None:
        colours, limit = _errors(report.colour_lines), report.colour_choice.limit
        panels.append(ErrorBars(colours, "error of the cached embedding under a change of colour", limit, LIMIT))
    return _png(fidelity_bars([panel for panel in panels if panel.errors], report.title), BARS_DPI)


def example(image: Image, result: MotionResult, parameters: ReplayParameters) -> bytes:
    """An image, the moved image, and its embeddings in the principal colours of the true one, as a PNG."""
    agreements = result.agreements(image.shape[:2], parameters)
    embeddings = {"true": result.true} | {
        f"{name}, error {of_image(agreements[name], 'error'):.2f}": embedding
        for name, embedding in result.replayed.items()
        if name not in (UNMOVED, VIEWS)
    }
    return _example(image, result.spec.name, moved_native(image, result.motions), embeddings)


def colour_example(image: ImageEmbeddings, result: ColourResult) -> bytes:
    """An image, the image in other colours, and the true and the cached embedding, as a PNG."""
    error = of_image(result.agreements[CACHED], "error")
    embeddings = {"true": result.true, f"{CACHED}, error {error:.2f}": image.exact[0].float()}
    return _example(image.native, result.name, result.changed, embeddings)


def _example(image: Image, name: str, changed: Image, embeddings: Mapping[str, Tensor]) -> bytes:
    """Two images and embeddings of the second, of which the first is the true one."""
    colours = PrincipalColours.fit([next(iter(embeddings.values())).numpy()])
    panels = [
        FeaturePanel(title="image", rgb=image),
        FeaturePanel(title=name, rgb=changed),
        *(
            FeaturePanel(title=title, rgb=colours.paint(values.numpy()), explained=_shares(colours, values.numpy()))
            for title, values in embeddings.items()
        ),
    ]
    return _png(feature_panels(panels), EXAMPLE_DPI)


def _errors(lines: Mapping[str, Scores]) -> dict[str, dict[str, Interval]]:
    """Line -> column -> error."""
    return {line: {column: measures["error"] for column, measures in scores.items()} for line, scores in lines.items()}


def _shares(colours: PrincipalColours, embedding: np.ndarray) -> np.ndarray:
    """The share of the variance of an embedding that each of the three colours explains."""
    cells = embedding.reshape(len(embedding), -1).T - embedding.mean(axis=(1, 2))
    shares: np.ndarray = (cells @ colours.axes.T).var(axis=0) / cells.var(axis=0).sum()
    return shares


def _png(figure: Figure, dpi: int) -> bytes:
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None}, pil_kwargs={"optimize": True})
    return buffer.getvalue()
