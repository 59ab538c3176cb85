"""Errors of embeddings under motions and changes of colour, as bars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nucseg.figures.style import CYCLE, INK, tidy
from nucseg.metrics.statistics import Interval

BAR_IN, BETWEEN_IN, AROUND_IN = 0.08, 0.1, 1.0
"""Height of a bar, of the gap between groups of bars, and of the rest of a panel."""

MAX_LETTERS = 40
"""Longest name of a row, which leaves more than half of the width to the bars."""


@dataclass(frozen=True, eq=False)
class ErrorBars:
    """A panel of bars."""

    errors: Mapping[str, Mapping[str, Interval]]
    """Row -> column -> error; all rows have the same columns. Every row is a group of bars."""
    label: str
    """What the axis shows."""
    reference: float
    """The error at which a vertical line is drawn."""
    reference_label: str
    """What that error means."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The bars of each group."""
        return tuple(next(iter(self.errors.values())))

    @property
    def group_in(self) -> float:
        """Height of a group with its gap."""
        return BAR_IN * len(self.columns) + BETWEEN_IN

    @property
    def height_in(self) -> float:
        """Height of the panel."""
        return AROUND_IN + self.group_in * len(self.errors)


def fidelity_bars(panels: Sequence[ErrorBars], title: str = "") -> Figure:
    """Draw errors as bars, with their confidence intervals as lines; each panel has its own scale.

    Args:
        panels: from top to bottom.
        title: title of the figure.
    """
    heights = [panel.height_in for panel in panels]
    figure = Figure(figsize=(6.4, sum(heights)), layout="constrained")
    figure.suptitle(title, x=0.01, ha="left", fontsize=8, color=INK)
    rows = figure.subplots(len(panels), squeeze=False, height_ratios=heights)[:, 0]
    for axes, panel in zip(rows, panels, strict=True):
        _draw(axes, panel)
    return figure


def _draw(axes: Axes, panel: ErrorBars) -> None:
    columns, errors = panel.columns, panel.errors
    height = BAR_IN / panel.group_in
    for position, column in enumerate(columns):
        rows = [row + (position - (len(columns) - 1) / 2) * height for row in range(len(errors))]
        bars = [of_row[column] for of_row in errors.values()]
        axes.barh(rows, [bar.value for bar in bars], height, color=CYCLE[position % len(CYCLE)], label=column)
        _draw_intervals(axes, rows, bars)
    axes.axvline(panel.reference, color=INK, linewidth=0.9, linestyle="--")
    axes.text(panel.reference, -0.62, f" {panel.reference_label}", fontsize=7, color=INK, va="bottom")
    axes.set_yticks(range(len(errors)), [_shortened(name) for name in errors])
    axes.set_ylim(len(errors) - 0.45, -0.65)
    axes.set_xlim(left=0)
    tidy(axes, xlabel=panel.label)
    axes.grid(visible=False, axis="y")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=len(columns), fontsize=8, frameon=False)


def _shortened(name: str) -> str:
    """The end of a long name: a row may be called after a file."""
    return name if len(name) <= MAX_LETTERS else f"\N{HORIZONTAL ELLIPSIS}{name[1 - MAX_LETTERS :]}"


def _draw_intervals(axes: Axes, rows: list[float], bars: list[Interval]) -> None:
    for row, bar in zip(rows, bars, strict=True):
        if bar.low is not None and bar.high is not None:
            axes.plot([bar.low, bar.high], [row, row], color=INK, linewidth=0.8)
