"""Numbers, intervals and sizes as text."""

from __future__ import annotations

from collections.abc import Callable

from nucseg.metrics import Interval, SizeBin, Spread


def number(value: float, metric: str = "") -> str:
    """Write a score with three decimals, a distance in pixels with one."""
    return f"{value:.{_decimals(metric)}f}"


def signed(value: float, metric: str = "") -> str:
    """Write a difference with its sign."""
    return f"{value:+.{_decimals(metric)}f}".replace("-", "\N{MINUS SIGN}")


def _decimals(metric: str) -> int:
    return 1 if metric == "hd95" else 3


def bounds(interval: Interval, metric: str = "", write: Callable[[float, str], str] = number) -> str:
    """Write the ends of an interval, or why there is none."""
    if interval.low is None or interval.high is None:
        return "no interval: one group"
    return f"{write(interval.low, metric)} to {write(interval.high, metric)}"


def p_value(p: float) -> str:
    """Write a p value no more precisely than it is worth."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def spread_cells(over_runs: Spread, metric: str = "") -> list[str]:
    """Write mean, standard deviation, lowest and highest value over runs."""
    values = (over_runs.mean, over_runs.sd, over_runs.low, over_runs.high)
    return ["" if value is None else number(value, metric) for value in values]


def size_words(size: SizeBin) -> str:
    """Say which nuclei a bin holds."""
    return f"{size.low_px:.0f} to {size.high_px:.0f} px ({size.n_nuclei:,} nuclei)"
