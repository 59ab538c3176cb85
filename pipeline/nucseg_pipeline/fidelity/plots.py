"""Figures: errors as bars, and true and replayed embeddings as colours."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from matplotlib.figure import Figure

from nucseg.figures import FeaturePanel, PrincipalColours, feature_panels, fidelity_bars
from nucseg.replay.fidelity import of_image
from nucseg_pipeline.fidelity.native_images import Image, moved_native
from nucseg_pipeline.fidelity.references import UNMOVED, VIEWS, MotionResult, ReplayParameters
from nucseg_pipeline.fidelity.text import FidelityReport

BARS_DPI, EXAMPLE_DPI = 120, 96
"""Sufficient for a page of documentation, with small files."""


def bars(report: FidelityReport) -> bytes:
    """The errors of all motions and replays as a PNG."""
    errors = {
        line: {replay: measures["error"] for replay, measures in scores.items()}
        for line, scores in report.lines.items()
    }
    return _png(fidelity_bars(errors, report.title), BARS_DPI)


def example(image: Image, result: MotionResult, parameters: ReplayParameters) -> bytes:
    """An image, the moved image, and its embeddings in the principal colours of the true one, as a PNG."""
    colours = PrincipalColours.fit([result.true.numpy()])
    agreements = result.agreements(image.shape[:2], parameters)
    embeddings = {"true": result.true} | {
        f"{name}, error {of_image(agreements[name], 'error'):.2f}": embedding
        for name, embedding in result.replayed.items()
        if name not in (UNMOVED, VIEWS)
    }
    panels = [
        FeaturePanel(title="image", rgb=image),
        FeaturePanel(title=result.spec.name, rgb=moved_native(image, result.motions)),
        *(
            FeaturePanel(title=name, rgb=colours.paint(values.numpy()), explained=_shares(colours, values.numpy()))
            for name, values in embeddings.items()
        ),
    ]
    return _png(feature_panels(panels), EXAMPLE_DPI)


def _shares(colours: PrincipalColours, embedding: np.ndarray) -> np.ndarray:
    """The share of the variance of an embedding that each of the three colours explains."""
    cells = embedding.reshape(len(embedding), -1).T - embedding.mean(axis=(1, 2))
    shares: np.ndarray = (cells @ colours.axes.T).var(axis=0) / cells.var(axis=0).sum()
    return shares


def _png(figure: Figure, dpi: int) -> bytes:
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None}, pil_kwargs={"optimize": True})
    return buffer.getvalue()
