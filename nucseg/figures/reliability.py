"""Whether predicted probabilities mean what they say: observed against predicted share of nucleus."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from nucseg.figures.style import INK, LineStyle, line_style, tidy

PerBin = NDArray[np.float64]


class Calibration(Protocol):
    """What the diagram needs of one run: pixels in K bins of equal width between probability 0 and 1.

    `nucseg.metrics.Reliability` is one.
    """

    @property
    def n_pixels(self) -> PerBin:
        """(K,) pixels in each bin."""

    @property
    def probability_sum(self) -> PerBin:
        """(K,) sum of their predicted probabilities."""

    @property
    def n_nucleus_pixels(self) -> PerBin:
        """(K,) how many of them are nucleus in truth."""


def reliability_diagram(curves: Mapping[str, Calibration]) -> Figure:
    """Draw the observed share of nucleus pixels against the mean predicted probability, one line a run, by run name.

    A point is a bin that holds pixels. On the grey diagonal probabilities mean what they say; below it the run is too
    sure of nuclei, above it not sure enough. Beneath stands the share of the pixels in each bin, on a logarithmic
    axis, because most pixels are background beyond doubt.
    """
    figure = Figure(figsize=(4.4, 5.4), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    upper.plot([0, 1], [0, 1], color=INK, linewidth=0.8, alpha=0.6)
    for position, (name, counts) in enumerate(curves.items()):
        _draw_run(upper, lower, counts, name, line_style(position))
    upper.set_xlim(-0.03, 1.03)
    upper.set_ylim(-0.03, 1.03)
    if any(counts.n_pixels.any() for counts in curves.values()):
        lower.set_yscale("log")
    tidy(upper, ylabel="share of nucleus pixels")
    tidy(lower, ylabel="share of all pixels", xlabel="predicted probability of nucleus")
    figure.legend(*upper.get_legend_handles_labels(), loc="outside upper left", fontsize=8, frameon=False)
    return figure


def _draw_run(upper: Axes, lower: Axes, counts: Calibration, name: str, style: LineStyle) -> None:
    filled = counts.n_pixels > 0
    n_pixels = counts.n_pixels[filled]
    predicted, observed = counts.probability_sum[filled] / n_pixels, counts.n_nucleus_pixels[filled] / n_pixels
    upper.plot(predicted, observed, label=name, marker="o", markersize=3.5, **style)
    # nan is a gap: a logarithmic axis has no 0
    share = np.where(filled, counts.n_pixels, np.nan) / max(n_pixels.sum(), 1)
    lower.stairs(share, np.linspace(0, 1, len(share) + 1), baseline=None, **style)
