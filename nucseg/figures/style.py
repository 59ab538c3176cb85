"""Style shared by all figures: distinct colours and dashes, and plain axes."""

from __future__ import annotations

from typing import TypedDict

from matplotlib.axes import Axes

CYCLE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
"""Colours of runs, distinct for any kind of colour vision (Okabe and Ito 2008)."""
DASHES = ("-", "--", "-.", ":")

INK, GRID = "#333333", "#DDDDDD"


class LineStyle(TypedDict):
    """Arguments of `Axes.plot` for the line of one run."""

    color: str
    linestyle: str
    linewidth: float


def line_style(position: int) -> LineStyle:
    """Colour and dash of the run at this position; the dash helps in print without colour."""
    return {"color": CYCLE[position % len(CYCLE)], "linestyle": DASHES[position % len(DASHES)], "linewidth": 1.6}


def tidy(axes: Axes, *, xlabel: str = "", ylabel: str = "") -> None:
    """Label the axes and remove what is not needed to read them."""
    axes.set_xlabel(xlabel, fontsize=9, color=INK)
    axes.set_ylabel(ylabel, fontsize=9, color=INK)
    axes.tick_params(labelsize=8, colors=INK)
    axes.grid(visible=True, color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
