"""`nucseg report`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nucseg_pipeline.cli import completion
from nucseg_pipeline.cli.console import notes, out, progress_bar, table

if TYPE_CHECKING:
    from nucseg.metrics import Interval
    from nucseg_pipeline.config import ReportConfig
    from nucseg_pipeline.report.cross_dataset import Matrix
    from nucseg_pipeline.report.summary import ReportSummary

SHOWN = ("dice", "iou", "aji", "pq", "dice_weighted")
"""Metrics printed in the terminal; the report has all."""

MOST_COLUMNS = 3
"""More configurations than this are printed a line each, or their names and scores would be cut."""

SHOWN_DIFFERENCES = ("dice", "aji", "pq")
"""Metrics whose paired differences are printed."""


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of finished runs.")],
    names: Annotated[
        list[str] | None,
        typer.Option(
            "--name", help="Name of a run in the report, once for each in their order. Default: its folder's."
        ),
    ] = None,
    datasets: Annotated[
        list[str] | None,
        typer.Option(
            "--dataset",
            autocompletion=completion.datasets,
            metavar="NAME",
            help="Data set in the cache to score on, also one that the runs were not trained on; several make a "
            "matrix. Default: the test part of each run.",
        ),
    ] = None,
    grid: Annotated[
        str, typer.Option(metavar="256|native", help="The prepared images, or the source's own masks at their size.")
    ] = "256",
    source: Annotated[
        Path | None, typer.Option(help="Folder of the native masks, where it has moved since `embed`.")
    ] = None,
    out_folder: Annotated[
        Path | None, typer.Option("--out", help="Folder of the report. Default: reports/NAMES.")
    ] = None,
    baseline: Annotated[
        str | None,
        typer.Option(help="Name of the run or configuration that others are compared with. Default: the first."),
    ] = None,
    n_images: Annotated[
        int | None, typer.Option(help="Images that the page has pictures of, at most. Default: 60.")
    ] = None,
    cache: Annotated[
        str | None, typer.Option(help="Folder or URL of the cache, where it has moved since the training.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="auto (default), cpu, cuda, cuda:N, mps.")] = None,
) -> None:
    """Stage three: score runs and write a report.

    Reads the run folders and the stores they were trained from, and with --grid native the data set's own masks. Writes
    report.html (one file, no network), summary.md, summary.json and per_image.csv. Several runs are set side by side
    with paired differences; runs that differ only in fold and seed are summed up as one, with mean and spread.
    """
    from nucseg_pipeline.config import ReportConfig
    from nucseg_pipeline.config.recipe import resolve

    options = {
        "runs": tuple(runs),
        "names": tuple(names or ()),
        "datasets": tuple(datasets or ()),
        "grid": grid,
        "source": source,
        "out": out_folder,
        "baseline": baseline,
        "n_overlays": n_images,
        "cache": cache,
        "device": device,
    }
    config = resolve(ReportConfig, {}, options)
    run_report(config)


def run_report(config: ReportConfig) -> None:
    """Run stage three and say what came out."""
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
    if len(found.configurations) <= MOST_COLUMNS:
        rows = [
            [
                name,
                *(_cell(one.metrics[name]) for one in found.configurations),
                number(found.all_background[name].value),
            ]
            for name in SHOWN
        ]
        out.print(table(title, ("metric", *(one.name for one in found.configurations), "all background"), rows))
    else:
        rows = [[one.name, *(_cell(one.metrics[name]) for name in SHOWN)] for one in found.configurations]
        rows.append(["all background", *(number(found.all_background[name].value) for name in SHOWN)])
        out.print(table(title, ("configuration", *SHOWN), rows))
    for one in found.repeated:
        over_runs = one.spreads["dice"]
        deviation = "" if over_runs.sd is None else f", standard deviation {number(over_runs.sd)}"
        out.print(f"{one.name}, {one.repeats}: dice over {one.spread_over} {number(over_runs.mean)}{deviation}")
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
    title = f"foreground Dice, {matrix.grid}: mean (95 % interval); * trained on this data set, on other images"
    out.print(table(title, ("configuration", *(f"{c.dataset} ({c.n_images})" for c in matrix.columns)), rows))


def _cell(interval: Interval) -> str:
    """A score and its interval, short enough for two runs in a narrow terminal."""
    from nucseg_pipeline.formatting import bounds, number

    return f"{number(interval.value)} ({bounds(interval)})".replace(" to ", "\N{EN DASH}")
