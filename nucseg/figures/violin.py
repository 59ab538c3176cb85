"""Violin plots of the scores of the images of a test set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure

from nucseg.figures.style import CYCLE, INK, tidy


def violin(scores: Mapping[str, Sequence[float]], xlabel: str = "foreground Dice per image") -> Figure:
    """Draw one horizontal violin per run, by run name, with a dot per image and a bar at the mean.

    Violins end at the lowest and the highest score, so that no density is drawn for scores below 0 or above 1.
    """
    figure = Figure(figsize=(4.4, 0.7 + 0.95 * len(scores)), layout="constrained")
    axes = figure.subplots()
    for position, (name, values) in enumerate(scores.items()):
        _draw_violin(axes, position, np.asarray(values, dtype=np.float64))
        # above the violin, because names of runs are too long to fit next to it
        axes.text(0.01, position - 0.4, name, fontsize=8, color=INK, transform=axes.get_yaxis_transform())
    axes.set_yticks([])
    axes.set_ylim(len(scores) - 0.55, -0.65)
    tidy(axes, xlabel=xlabel)
    return figure


def _draw_violin(axes: Axes, position: int, values: np.ndarray) -> None:
    colour = CYCLE[position % len(CYCLE)]
    parts = axes.violinplot(values, [position], orientation="horizontal", widths=0.66, showextrema=False)
    for body in cast(list[PolyCollection], parts["bodies"]):
        body.set(facecolor=colour, alpha=0.25, edgecolor=colour)
    # jitter by a fixed sequence (golden ratio), so that the same scores give the same figure
    spread = (np.arange(values.size) * 0.618034 % 1 - 0.5) * 0.24
    axes.scatter(values, position + spread, s=9, color=colour, alpha=0.8, linewidths=0)
    axes.plot([values.mean()] * 2, [position - 0.26, position + 0.26], color=INK, linewidth=1.8)
