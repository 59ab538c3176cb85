"""`nucseg report`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nucseg_pipeline.cli.console import notes, out, progress_bar, table

if TYPE_CHECKING:
    from nucseg.metrics import Interval
    from nucseg_pipeline.config import ReportConfig

SHOWN = ("dice", "iou", "aji", "pq", "dice_weighted")
"""Metrics printed in the terminal; the report has all."""

SHOWN_DIFFERENCES = ("dice", "aji", "pq")
"""Metrics whose paired differences are printed."""


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of finished runs.")],
    out_folder: Annotated[
        Path | None, typer.Option("--out", help="Folder of the report. Default: reports/NAMES.")
    ] = None,
    baseline: Annotated[
        str | None, typer.Option(help="Name of the run that others are compared with. Default: the first.")
    ] = None,
    cache: Annotated[
        str | None, typer.Option(help="Folder or URL of the cache, where it has moved since the training.")
    ] = None,
) -> None:
    """Stage three: score runs on their test part and write a report.

    Reads the run folders and the stores they were trained from. Writes report.html (one file, no network), summary.md,
    summary.json and per_image.csv. Several runs are set side by side with paired differences.
    """
    from nucseg_pipeline.config import ReportConfig
    from nucseg_pipeline.recipe import resolve

    options = {"runs": tuple(runs), "out": out_folder, "baseline": baseline, "cache": cache}
    config = resolve(ReportConfig, {}, options)
    run_report(config)


def run_report(config: ReportConfig) -> None:
    """Run stage three and say what came out."""
    from nucseg_pipeline.report import report as report_stage

    with progress_bar() as progress:
        result = report_stage(config, progress)
    found = result.findings
    notes([*found.warnings, *found.notes])
    from nucseg_pipeline.report_text import bounds, number, p_value, signed

    rows = [
        [
            name,
            *(_cell(run.metrics[name]) for run in found.runs),
            number(found.all_background[name].value),
        ]
        for name in SHOWN
    ]
    title = f"{found.dataset}, {found.n_images} test images, {found.grid_px} px grid: mean (95 % interval)"
    out.print(table(title, ("metric", *(run.name for run in found.runs), "all background"), rows))
    for comparison in found.comparisons:
        for name in SHOWN_DIFFERENCES:
            paired = comparison.differences[name]
            out.print(
                f"{comparison.name} minus {comparison.baseline}, {name}: {signed(paired.difference.value)} "
                f"({bounds(paired.difference, signed)}), Wilcoxon {p_value(paired.wilcoxon_p)}, "
                f"better on {paired.n_better} images, worse on {paired.n_worse}"
            )
    out.print(f"report: {result.page}")


def _cell(interval: Interval) -> str:
    """A score and its interval, short enough for two runs in a narrow terminal."""
    from nucseg_pipeline.report_text import bounds, number

    return f"{number(interval.value)} ({bounds(interval)})".replace(" to ", "\N{EN DASH}")
