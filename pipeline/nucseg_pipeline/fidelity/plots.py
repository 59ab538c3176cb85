"""The figures: errors as bars, and one embedding as colours, true and replayed."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from matplotlib.figure import Figure

from nucseg.figures import FeaturePanel, PrincipalColours, feature_panels, fidelity_bars
from nucseg.replay.fidelity import of_image
from nucseg_pipeline.fidelity.native_images import Image, moved_native
from nucseg_pipeline.fidelity.references import UNMOVED, VIEWS, ReplayParameters, Seen
from nucseg_pipeline.fidelity.text import Told

BARS_DPI, EXAMPLE_DPI = 120, 96
"""Enough for a page of documentation, and small."""


def bars(told: Told) -> bytes:
    """The errors of every move and replay, as a PNG."""
    errors = {line: {name: one["error"] for name, one in scores.items()} for line, scores in told.lines.items()}
    return _png(fidelity_bars(errors, told.title), BARS_DPI)


def example(image: Image, seen: Seen, learned: ReplayParameters) -> bytes:
    """An image, how it moves, and its embedding as colours of the true one's components, as a PNG."""
    colours = PrincipalColours.fit([seen.true.numpy()])
    errors = {name: of_image(one, "error") for name, one in seen.agreements(image.shape[:2], learned).items()}
    replayed = {name: one for name, one in seen.replayed.items() if name not in (UNMOVED, VIEWS)}
    shown = {"true": seen.true, **{f"{name}, error {errors[name]:.2f}": one for name, one in replayed.items()}}
    panels = [
        FeaturePanel(title="image", rgb=image),
        FeaturePanel(title=seen.move.name, rgb=moved_native(image, seen.motions)),
        *(
            FeaturePanel(title=name, rgb=colours.paint(one.numpy()), explained=_shares(colours, one.numpy()))
            for name, one in shown.items()
        ),
    ]
    return _png(feature_panels(panels), EXAMPLE_DPI)


def _shares(colours: PrincipalColours, embedding: np.ndarray) -> np.ndarray:
    """How much of the variance of an embedding the three colours show."""
    cells = embedding.reshape(len(embedding), -1).T - embedding.mean(axis=(1, 2))
    shares: np.ndarray = (cells @ colours.axes.T).var(axis=0) / cells.var(axis=0).sum()
    return shares


def _png(figure: Figure, dpi: int) -> bytes:
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None}, pil_kwargs={"optimize": True})
    return buffer.getvalue()
