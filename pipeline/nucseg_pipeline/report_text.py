"""A report as text: the table of images, the summary for programs and the summary for people."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict

from nucseg.metrics import Interval, PairedDifference
from nucseg_pipeline.report_compare import Comparison
from nucseg_pipeline.report_findings import Findings
from nucseg_pipeline.report_scores import ALL_BACKGROUND, METRICS, RunScores


def number(value: float) -> str:
    """Write a score with three decimals."""
    return f"{value:.3f}"


def signed(value: float) -> str:
    """Write a difference with its sign."""
    return f"{value:+.3f}".replace("-", "\N{MINUS SIGN}")


def bounds(interval: Interval, write: Callable[[float], str] = number) -> str:
    """Write the ends of an interval, or why there is none."""
    if interval.low is None or interval.high is None:
        return "no interval: one group"
    return f"{write(interval.low)} to {write(interval.high)}"


def p_value(p: float) -> str:
    """Write a p value no more precisely than it is worth."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def csv_text(runs: Sequence[RunScores]) -> str:
    """Write one line an image and run: what it is, the pixels counted, the nuclei, every score in full."""
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    scores = list(runs[0].images[0].values)
    pixels = [f"{name}_px" for name in asdict(runs[0].images[0].counts)]
    writer.writerow(["run", "id", "group", "stratum", *scores, *pixels, "n_true", "n_predicted"])
    for run in runs:
        for image in run.images:
            counts = asdict(image.counts).values()
            about = [run.name, image.id, image.group, image.stratum]
            writer.writerow([*about, *image.values.values(), *counts, image.n_true, image.n_predicted])
    return table.getvalue()


def json_text(findings: Findings) -> str:
    """Write everything that the report says, for programs."""
    return json.dumps(findings.as_json(), indent=1, allow_nan=False) + "\n"


def markdown_text(findings: Findings) -> str:
    """Write the figures, the comparisons and what they rest on, for people."""
    lines = [
        f"# Nuclei segmentation on {findings.dataset}",
        "",
        *(f"> **Warning.** {warning}\n" for warning in findings.warnings),
        f"{findings.n_images} test images of {findings.n_groups} groups, protocol {findings.protocol}, scored on the "
        f"{findings.grid_px} px grid. Means over images with 95 % bootstrap intervals over groups.",
        "",
        *(f"- {note}" for note in findings.notes),
        "",
        *_metric_table(findings),
        "",
        *_comparison_lines(findings.comparisons),
        "Dice counts foreground alone. The weighted scores count background too, which is why the prediction that "
        f"finds nothing ({ALL_BACKGROUND}) does well by them; they are no headline.",
        "",
        f"Made by nucseg {findings.nucseg} on {findings.created}:",
        "",
        f"    {findings.command}",
    ]
    return "\n".join(lines) + "\n"


def _metric_table(findings: Findings) -> list[str]:
    rows = [(run.name, run.metrics) for run in findings.runs] + [(ALL_BACKGROUND, findings.all_background)]
    return [
        _row(["run", *METRICS]),
        _row(["---", *["---:"] * len(METRICS)]),
        *(_row([name, *(_cell(metrics[metric]) for metric in METRICS)]) for name, metrics in rows),
    ]


def _comparison_lines(comparisons: Sequence[Comparison]) -> list[str]:
    if not comparisons:
        return []
    table = [
        _row([c.name, c.baseline, metric, *_difference_cells(difference)])
        for c in comparisons
        for metric, difference in c.differences.items()
    ]
    return [
        "## Differences on the same images",
        "",
        _row(["run", "minus", "metric", "difference", "95 % interval", "Wilcoxon", "better on", "worse on"]),
        _row(["---"] * 3 + ["---:"] * 5),
        *table,
        "",
    ]


def _difference_cells(difference: PairedDifference) -> list[str]:
    ends = difference.difference
    return [
        signed(ends.value),
        bounds(ends, signed),
        p_value(difference.wilcoxon_p),
        str(difference.n_better),
        str(difference.n_worse),
    ]


def _cell(interval: Interval) -> str:
    if interval.low is None:
        return number(interval.value)
    return f"{number(interval.value)} ({bounds(interval)})"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
