"""Scatter plot of the mean embeddings of images, by organ or cohort."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from nucseg.errors import DataError
from nucseg.figures.style import CYCLE, INK, tidy

MARKERS = "osD^vP"
"""One per stratum, in addition to its colour, for readers who cannot distinguish the colours."""
OTHERS = "others"
"""Name of all strata without their own marker."""
OTHER_COLOUR = "#8A8F98"


def marked_strata(strata: Sequence[str]) -> tuple[str, ...]:
    """The strata that get their own marker: the most frequent ones, up to the number of markers."""
    counted = Counter(strata)
    ranked = sorted(counted, key=lambda name: (-counted[name], name))
    return tuple(sorted(ranked[: len(MARKERS)]))


def image_scatter(points: NDArray[np.float64], strata: Sequence[str], explained: Sequence[float]) -> Figure:
    """Draw images as points, (N, 2), with a colour and a marker for each stratum of `marked_strata`.

    Args:
        points: the first two principal components of each image.
        strata: organ or cohort of each image.
        explained: share of the variance in each of the two components, for the axes.

    Raises:
        DataError: the numbers of points and strata differ.
    """
    if points.shape != (len(strata), 2):
        raise DataError(f"A scatter plot needs (N, 2) points and N strata, got {points.shape} and {len(strata)}.")
    figure = Figure(figsize=(4.4, 4.6), layout="constrained")
    axes = figure.subplots()
    marked = marked_strata(strata)
    own = np.array([marked.index(name) if name in marked else -1 for name in strata])
    for position, marker in ((-1, "o"), *enumerate(MARKERS[: len(marked)])):
        x, y = points[own == position].T
        if not x.size:
            continue
        name = OTHERS if position < 0 else marked[position] or "no stratum"
        colour, area = (OTHER_COLOUR, 16) if position < 0 else (CYCLE[position], 34)
        axes.scatter(x, y, s=area, marker=marker, color=colour, label=name, alpha=0.85, linewidths=0.6, edgecolors=INK)
    first, second = (f"component {n}, {100 * share:.0f} % of the variance" for n, share in enumerate(explained, 1))
    tidy(axes, xlabel=first, ylabel=second)
    axes.margins(0.08)
    if len(set(strata)) > 1:
        figure.legend(loc="outside upper left", ncols=2, fontsize=8, frameon=False)
    return figure
