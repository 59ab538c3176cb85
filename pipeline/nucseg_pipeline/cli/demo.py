"""`nucseg demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nucseg_pipeline.cli.console import out
from nucseg_pipeline.cli.embed import run_embed
from nucseg_pipeline.cli.report import run_report
from nucseg_pipeline.cli.train import run_train


def demo(
    folder: Annotated[Path, typer.Option("--out", help="Folder for everything that the demonstration writes.")] = Path(
        "demo"
    ),
    quick: Annotated[
        bool, typer.Option("--quick", help="Few images and one epoch, to check that everything runs.")
    ] = False,
) -> None:
    """Run the whole pipeline on synthetic images: offline, a few minutes on two cores.

    Reads no files. Writes OUT/cache, OUT/runs and OUT/report. Prints the equivalent command before each stage.
    """
    from nucseg_pipeline.demo import demonstration

    plan = demonstration(folder, quick=quick)
    _stage(plan.embed_command)
    run_embed(plan.embed)
    for training in plan.trainings:
        _stage(plan.train_command(training))
        run_train(training)
    _stage(plan.report_command)
    run_report(plan.report)


def _stage(command: str) -> None:
    out.print(f"\n$ {command}", style="bold")
