"""Reliability diagrams: observed frequency of nucleus pixels against their predicted probability."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nucseg.figures.style import INK, LineStyle, line_style, tidy
from nucseg.metrics.calibration import Reliability


def reliability_diagram(curves: Mapping[str, Reliability]) -> Figure:
    """Draw the observed share of nucleus pixels against the mean predicted probability, one line per run.

    A point is a bin with pixels. On the grey diagonal, probabilities are calibrated; below it, the run is overconfident
    of nuclei, above it underconfident. The lower plot shows the share of all pixels in each bin, on a logarithmic axis
    because most pixels are clearly background.
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


def _draw_run(upper: Axes, lower: Axes, counts: Reliability, name: str, style: LineStyle) -> None:
    filled = counts.n_pixels > 0
    n_pixels = counts.n_pixels[filled]
    predicted, observed = counts.probability_sum[filled] / n_pixels, counts.n_nucleus_pixels[filled] / n_pixels
    upper.plot(predicted, observed, label=name, marker="o", markersize=3.5, **style)
    # NaN draws a gap, since a logarithmic axis has no 0
    share = np.where(filled, counts.n_pixels, np.nan) / max(n_pixels.sum(), 1)
    lower.stairs(share, np.linspace(0, 1, len(share) + 1), baseline=None, **style)
