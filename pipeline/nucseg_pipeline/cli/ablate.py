"""`nucseg ablate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nucseg_pipeline.cli import completion
from nucseg_pipeline.cli.console import FAILED, clock, notes, out, progress_bar, table

if TYPE_CHECKING:
    from nucseg_pipeline.ablate.jobs import JobResult
    from nucseg_pipeline.ablate.plan import PlannedRow
    from nucseg_pipeline.ablate.stage import AblateCallbacks
    from nucseg_pipeline.ablate.table import Table
    from nucseg_pipeline.config import AblateConfig, TrainConfig
    from nucseg_pipeline.progress import Progress

PRINTED = ("dice", "aji", "pq", "dice_weighted")
"""Metrics printed in the terminal."""


def ablate(
    recipe: Annotated[
        str,
        typer.Argument(
            autocompletion=completion.tables,
            help="Name or file of a table's recipe: models, activations, fusion, encoders, instances.",
        ),
    ],
    quick: Annotated[
        bool, typer.Option("--quick", help="Small networks, at most 4 minutes each on two cores, one fold.")
    ] = False,
    datasets: Annotated[
        list[str] | None,
        typer.Option(
            "--dataset",
            autocompletion=completion.datasets,
            metavar="NAME",
            help="Data set; repeat it. Default: the recipe's.",
        ),
    ] = None,
    encoder: Annotated[
        str | None,
        typer.Option(
            autocompletion=completion.encoders,
            help="Encoder of the rows that name none: vit_b (default), vit_l, vit_h, student, onnx:FILE.",
        ),
    ] = None,
    stain: Annotated[
        str | None,
        typer.Option(help="Stain normalisation of the rows that name none: none (default), macenko, ..."),
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="Checkpoint of that encoder. Default: $NUCSEG_WEIGHTS, user cache.")
    ] = None,
    folds: Annotated[
        int | None,
        typer.Option(help="The first so many folds of each protocol. Default: the recipe's; 1 with --quick."),
    ] = None,
    seeds: Annotated[
        list[int] | None, typer.Option("--seed", help="Seed; repeat it for several. Default: the recipe's.")
    ] = None,
    grid: Annotated[
        str, typer.Option(metavar="256|native", help="The prepared images, or the source's own masks at their size.")
    ] = "256",
    jobs: Annotated[int | None, typer.Option(help="Trainings at once, sharing the cores. Default: 1.")] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads of each training. Default: its share.")] = None,
    device: Annotated[str | None, typer.Option(help="auto (default), cpu, cuda, cuda:N, mps.")] = None,
    runs: Annotated[Path | None, typer.Option(help="Folder of the runs. Default: runs.")] = None,
    out_folder: Annotated[
        Path | None, typer.Option("--out", help="Folder of the table. Default: reports/RECIPE.")
    ] = None,
    cache: Annotated[
        str | None, typer.Option(help="Folder or URL of the cache. Default: $NUCSEG_CACHE, user cache.")
    ] = None,
) -> None:
    """Make a table of the papers: embed what is missing, train every row, compare, set it beside what was published.

    Reads CACHE, and the data sets and weights that it lacks. Writes runs/NAME/ for each run, and ablation.html,
    ablation.md, ablation.json and the full reports into OUT. Finished runs are skipped and shared by all tables; a run
    that crashes is told and the others go on; a row without its data or weights says "not run" and why.
    """
    from nucseg_pipeline.config import AblateConfig
    from nucseg_pipeline.config.recipe import resolve

    options = {
        "recipe": recipe, "quick": quick, "datasets": tuple(datasets or ()), "stain": stain, "encoder": encoder,
        "weights": weights, "folds": folds, "seeds": tuple(seeds or ()), "grid": grid, "jobs": jobs, "threads": threads,
        "device": device, "runs": runs, "out": out_folder, "cache": cache,
    }  # fmt: skip
    run_ablate(resolve(AblateConfig, {}, options))


def run_ablate(config: AblateConfig) -> None:
    """Make the table and say what came out."""
    from nucseg_pipeline.ablate.stage import ablate as ablate_stage

    with progress_bar() as embedding:
        result = ablate_stage(config, _callbacks(embedding))
    for one in result.tables.tables:
        _print_table(one)
    notes(list(dict.fromkeys(note for one in result.tables.tables for note in one.notes)))
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
