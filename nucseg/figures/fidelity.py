"""Errors of replayed embeddings by motion and kind of replay."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nucseg.figures.style import CYCLE, INK, tidy
from nucseg.metrics.statistics import Interval

BAR_IN, BETWEEN_IN, AROUND_IN = 0.08, 0.1, 1.0
"""Height of a bar, of the gap between groups of bars, and of the rest of the figure."""


def fidelity_bars(errors: Mapping[str, Mapping[str, Interval]], title: str = "") -> Figure:
    """Draw the error of each replay under each motion as a bar, with its confidence interval as a line.

    The dashed line at 1.0 is the error of the channel means, which ignore the image: beyond it, replay does harm.

    Args:
        errors: motion -> replay -> error; all motions have the same replays.
        title: title of the legend.
    """
    replays = list(next(iter(errors.values())))
    group_in = BAR_IN * len(replays) + BETWEEN_IN
    figure = Figure(figsize=(6.4, AROUND_IN + group_in * len(errors)), layout="constrained")
    axes = figure.subplots()
    height = BAR_IN / group_in
    for position, replay in enumerate(replays):
        rows = [row + (position - (len(replays) - 1) / 2) * height for row in range(len(errors))]
        bars = [of_motion[replay] for of_motion in errors.values()]
        axes.barh(rows, [bar.value for bar in bars], height, color=CYCLE[position % len(CYCLE)], label=replay)
        _draw_intervals(axes, rows, bars)
    axes.axvline(1, color=INK, linewidth=0.9, linestyle="--")
    axes.text(1, -0.62, " no better than channel means", fontsize=7, color=INK, va="bottom")
    axes.set_yticks(range(len(errors)), list(errors))
    axes.set_ylim(len(errors) - 0.45, -0.65)
    axes.set_xlim(left=0)
    tidy(axes, xlabel="relative squared error of the replayed embedding (0: the true one)")
    axes.grid(visible=False, axis="y")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper left", ncols=len(replays), fontsize=8,
                  frameon=False, title=title, title_fontsize=8, alignment="left")  # fmt: skip
    return figure


def _draw_intervals(axes: Axes, rows: list[float], bars: list[Interval]) -> None:
    for row, bar in zip(rows, bars, strict=True):
        if bar.low is not None and bar.high is not None:
            axes.plot([bar.low, bar.high], [row, row], color=INK, linewidth=0.8)
