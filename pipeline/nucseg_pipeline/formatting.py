"""Numbers, intervals and tables as text."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

from nucseg.metrics import Interval, PairedDifference, SizeBin, Spread


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


def with_bounds(interval: Interval, metric: str = "") -> str:
    """Write a score and its interval, if it has one, as `0.812 (0.790 to 0.834)`."""
    value = number(interval.value, metric)
    return value if interval.low is None else f"{value} ({bounds(interval, metric)})"


def p_value(p: float) -> str:
    """Write a p value with three decimals, or that it is smaller."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def difference(paired: PairedDifference) -> str:
    """Write a paired difference with its interval, its test, and on how many images it is better or worse."""
    return (
        f"{signed(paired.difference.value)} ({bounds(paired.difference, write=signed)}), "
        f"{p_value(paired.wilcoxon_p)}, better on {paired.n_better}, worse on {paired.n_worse}"
    )


def spread_cells(over_runs: Spread, metric: str = "") -> list[str]:
    """Write mean, standard deviation, lowest and highest value over runs."""
    values = (over_runs.mean, over_runs.sd, over_runs.low, over_runs.high)
    return ["" if value is None else number(value, metric) for value in values]


def size_words(size: SizeBin) -> str:
    """Write the area range and the number of nuclei of a bin."""
    return f"{size.low_px:.0f} to {size.high_px:.0f} px ({size.n_nuclei:,} nuclei)"


def plain_line(text: str) -> str:
    """A text in one line of Markdown, in which names cannot act as HTML."""
    return " ".join(text.split()).replace("<", "\\<")


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]], n_words: int = 1) -> Iterator[str]:
    """The lines of a Markdown table and an empty line; nothing without rows.

    Args:
        head: column headings.
        rows: the cells.
        n_words: leading columns that hold words; the others hold numbers and are aligned to the right.
    """
    if rows:
        alignment = ["---"] * n_words + ["---:"] * (len(head) - n_words)
        for cells in (head, alignment, *rows):
            yield "| " + " | ".join(plain_line(cell).replace("|", "\\|") for cell in cells) + " |"
        yield ""


def file_name(name: str) -> str:
    """A name without characters that are special to file systems or shells."""
    return re.sub(r"[^\w.+]+", "-", name).strip("-.")[:100] or "unnamed"
