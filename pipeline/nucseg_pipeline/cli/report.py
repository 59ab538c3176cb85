"""`nucseg report`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from nucseg_pipeline.cli.console import notes, out, progress_bar, table
from nucseg_pipeline.cli.options import options_from
from nucseg_pipeline.config import ReportConfig

if TYPE_CHECKING:
    from nucseg.metrics import Interval
    from nucseg_pipeline.report.cross_dataset import Matrix
    from nucseg_pipeline.report.summary import ReportSummary

SHOWN = ("dice", "iou", "aji", "pq", "dice_weighted")
"""Metrics printed in the terminal; the report has all."""

MAX_COLUMNS = 3
"""With more configurations than this, each gets a row instead of a column, so that nothing is cut off."""

SHOWN_DIFFERENCES = ("dice", "aji", "pq")
"""Metrics whose paired differences are printed."""


@options_from(
    ReportConfig,
    {
        "Data": "datasets grid source cache",
        "Model": "weights",
        "Scoring": "baseline n_resamples seed",
        "Machine": "device",
        "Output": "out names n_images",
    },
    arguments={"runs": typer.Argument(metavar="RUN")},
    flags={"names": "--name", "datasets": "--dataset"},
)
def report(config: ReportConfig) -> None:
    """Stage three: score runs and write a report.

    Reads the run folders and the stores they were trained from, with --grid native also the data set's own masks, and
    with --grid tiles its images and masks and the weights of the encoders. Writes report.html (self-contained),
    summary.md, summary.json and per_image.csv. Several runs are compared by paired differences; runs that differ only
    in fold and seed are summarised as one configuration, with mean and spread.
    """
    run_report(config)


def run_report(config: ReportConfig) -> None:
    """Run stage three and print the result."""
    from nucseg_pipeline.report.stage import report as report_stage

    with progress_bar() as progress:
        result = report_stage(config, progress)
    notes(list(dict.fromkeys(line for found in result.summaries for line in (*found.warnings, *found.notes))))
    for found in result.summaries:
        _print_scores(found)
    if result.matrix:
        _print_matrix(result.matrix)
    out.print(f"report: {result.page}")


def _print_scores(found: ReportSummary) -> None:
    from nucseg_pipeline.formatting import bounds, number, p_value, signed

    title = f"{found.dataset}, {found.n_images} test images, {found.grid}: mean (95 % interval)"
    background = [number(found.all_background[metric].value) for metric in SHOWN]
    scores = {
        configuration.name: [_cell(configuration.metrics[metric]) for metric in SHOWN]
        for configuration in found.configurations
    }
    if len(scores) <= MAX_COLUMNS:
        rows = [list(row) for row in zip(SHOWN, *scores.values(), background, strict=True)]
        out.print(table(title, ("metric", *scores, "all background"), rows))
    else:
        rows = [[name, *cells] for name, cells in scores.items()]
        out.print(table(title, ("configuration", *SHOWN), [*rows, ["all background", *background]]))
    for configuration in found.repeated:
        over_runs = configuration.spreads["dice"]
        deviation = "" if over_runs.sd is None else f", standard deviation {number(over_runs.sd)}"
        out.print(
            f"{configuration.name}, {configuration.repeats}: "
            f"dice over {configuration.spread_over} {number(over_runs.mean)}{deviation}"
        )
    for comparison in found.comparisons:
        for name in SHOWN_DIFFERENCES:
            paired = comparison.differences[name]
            out.print(
                f"{comparison.name} minus {comparison.baseline}, {name}: {signed(paired.difference.value)} "
                f"({bounds(paired.difference, name, signed)}), Wilcoxon {p_value(paired.wilcoxon_p)}, "
                f"better on {paired.n_better} images, worse on {paired.n_worse}"
            )


def _print_matrix(matrix: Matrix) -> None:
    rows = [
        [
            row.name,
            *(
                _cell(cell["dice"]) + (" *" if row.is_own(column) else "")
                for column, cell in zip(matrix.columns, row.cells, strict=True)
            ),
        ]
        for row in matrix.rows
    ]
    title = f"foreground Dice, {matrix.first.grid}: mean (95 % interval); * trained on this data set, on other images"
    out.print(table(title, ("configuration", *(f"{c.dataset} ({c.n_images})" for c in matrix.columns)), rows))


def _cell(interval: Interval) -> str:
    """Format a score and its interval, short enough for two runs in a narrow terminal."""
    from nucseg_pipeline.formatting import bounds, number

    return f"{number(interval.value)} ({bounds(interval)})".replace(" to ", "\N{EN DASH}")
