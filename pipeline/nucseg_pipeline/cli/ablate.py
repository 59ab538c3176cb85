"""`nucseg ablate`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from nucseg_pipeline.cli import completion
from nucseg_pipeline.cli.console import FAILED, clock, notes, out, progress_bar, table
from nucseg_pipeline.cli.options import options_from
from nucseg_pipeline.config import AblateConfig

if TYPE_CHECKING:
    from nucseg_pipeline.ablate.jobs import JobResult
    from nucseg_pipeline.ablate.plan import PlannedRow
    from nucseg_pipeline.ablate.stage import AblateCallbacks
    from nucseg_pipeline.ablate.table import Table
    from nucseg_pipeline.config import TrainConfig
    from nucseg_pipeline.progress import Progress

PRINTED = ("dice", "aji", "pq", "dice_weighted")
"""Metrics printed in the terminal."""


@options_from(
    AblateConfig,
    {
        "Data": "datasets stain folds grid cache",
        "Embeddings": "encoder weights",
        "Training": "quick seeds jobs",
        "Machine": "device threads",
        "Output": "runs out",
    },
    arguments={"recipe": typer.Argument(metavar="RECIPE", autocompletion=completion.names(AblateConfig, "recipe"))},
    flags={"datasets": "--dataset", "seeds": "--seed", "quick": "--quick"},
)
def ablate(config: AblateConfig) -> None:
    """Train and compare the rows of an ablation table, for example those of the publications.

    Reads CACHE, and the data sets and weights that it lacks. Writes runs/NAME/ for each run, and ablation.html,
    ablation.md, ablation.json and the full reports into OUT. Finished runs are skipped and shared by all tables. A
    crashed run is reported; the others continue. A row without its data or weights is marked "not run", with the
    reason.
    """
    run_ablate(config)


def run_ablate(config: AblateConfig) -> None:
    """Make the table and print it."""
    from nucseg_pipeline.ablate.stage import ablate as ablate_stage

    with progress_bar() as embedding:
        result = ablate_stage(config, _callbacks(embedding))
    for dataset_table in result.tables.tables:
        _print_table(dataset_table)
    notes(list(dict.fromkeys(note for dataset_table in result.tables.tables for note in dataset_table.notes)))
    out.print(f"{result.n_trained} trained, {result.n_skipped} finished before, {result.n_failed} failed")
    out.print(f"table: {result.page}")
    if not result.is_complete:
        raise typer.Exit(FAILED)


def _callbacks(bar: Progress) -> AblateCallbacks:
    from nucseg_pipeline.ablate.stage import AblateCallbacks

    return AblateCallbacks(
        on_embed=bar, on_plan=_planned, on_start=_started, on_output=_printed, on_finish=_ended, on_score=bar
    )


def _planned(row: PlannedRow) -> None:
    if row.why_not:
        out.print(f"{row.dataset}, {row.row.name}: not run. {row.why_not}")
    else:
        n_runs = len(row.runs)
        out.print(f"{row.dataset}, {row.row.name}: {n_runs} run{'s' if n_runs != 1 else ''}, {row.n_encoded} encoded")


def _started(run: TrainConfig, position: str) -> None:
    out.print(f"run {position}: {run.name}")


def _printed(run: TrainConfig, line: str) -> None:
    if line.startswith("epoch "):
        out.print(f"  {run.name}: {line}")


def _ended(run: TrainConfig, result: JobResult) -> None:
    how = f"failed: {result.error}" if result.error else "finished"
    out.print(f"  {run.name}: {how}, {clock(result.seconds)}")


def _print_table(found: Table) -> None:
    from nucseg_pipeline.ablate.output import HEADINGS, published
    from nucseg_pipeline.ablate.table import DONE
    from nucseg_pipeline.formatting import difference, number

    rows = []
    for row in found.rows:
        scores = [number(row.metrics[name].value) if row.metrics else "" for name in PRINTED]
        rows.append([row.name, *(scores if row.status == DONE else [row.status, "", "", ""]), published(row)])
    if found.all_background:
        rows.append(["all background", *(number(found.all_background[name].value) for name in PRINTED), ""])
    columns = ("row", *(HEADINGS[name] for name in PRINTED), "published Dice / mIoU")
    out.print(
        table(f"{found.dataset}, {found.n_images} test images: means; intervals are in the table's page", columns, rows)
    )
    for row in found.done:
        for name, paired in row.differences.items():
            if name in PRINTED[:3]:
                out.print(f"{row.name} minus {found.baseline}, {name}: {difference(paired)}")
