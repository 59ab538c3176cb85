"""Make the table of a recipe: train what is not finished, score, compare, and write the table."""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from nucseg.errors import NucsegError
from nucseg_cache import CacheError
from nucseg_pipeline.ablate.jobs import JobResult, SubprocessRunner, n_cores, train_all
from nucseg_pipeline.ablate.output import output_files
from nucseg_pipeline.ablate.plan import PlannedRow, all_runs, plan_rows
from nucseg_pipeline.ablate.scoring import score_table
from nucseg_pipeline.ablate.table import Tables
from nucseg_pipeline.ablate.table_recipe import load_ablation
from nucseg_pipeline.config import AblateConfig, TrainConfig
from nucseg_pipeline.config.commands import command
from nucseg_pipeline.evaluation.scored_images import grid_name
from nucseg_pipeline.files.publish import check_writable, write_files
from nucseg_pipeline.progress import Progress
from nucseg_pipeline.runs.run import Run


@dataclass(frozen=True)
class AblateCallbacks:
    """Functions that are called while a table is made."""

    on_embed: Progress
    on_plan: Callable[[PlannedRow], None]
    on_start: Callable[[TrainConfig, str], None]
    """A training, and its position among all, such as `3 of 25`."""
    on_output: Callable[[TrainConfig, str], None]
    """A training, and a line that it printed; called from several threads."""
    on_finish: Callable[[TrainConfig, JobResult], None]
    on_score: Progress


@dataclass(frozen=True)
class AblateResult:
    """What was written, and how the trainings ended."""

    folder: Path
    page: Path
    tables: Tables
    n_trained: int
    n_skipped: int
    """Runs that were finished before."""
    n_failed: int

    @property
    def is_complete(self) -> bool:
        """Whether every training is finished, and every data set has at least one row with scores."""
        return not self.n_failed and all(table.done for table in self.tables.tables)


def ablate(config: AblateConfig, callbacks: AblateCallbacks, runner: SubprocessRunner | None = None) -> AblateResult:
    """Make the table of a recipe: embed what is missing, train what is not finished, score, compare, write.

    Writes `<out>/ablation.{html,md,json}`, the report on each data set's runs in `<out>/<dataset>/`, a log for each
    training in `<out>/logs/`, and the runs in `config.runs`. Rows that cannot be run state the reason; a crashed
    training is reported, and the others continue. All rows of a data set are scored on the folds and seeds that every
    row has finished.

    Raises:
        ConfigError: the recipe, or the folder of the table, cannot be used. Nothing was changed.
    """
    ablation = load_ablation(config.recipe)
    check_writable(config.folder)
    planned = {
        dataset: plan_rows(ablation, dataset, config, callbacks.on_embed, callbacks.on_plan)
        for dataset in config.datasets or ablation.datasets
    }
    runs = all_runs([row for rows in planned.values() for row in rows])
    positions = {run.folder: f"{position} of {len(runs)}" for position, run in enumerate(runs, start=1)}
    results = train_all(
        runs,
        jobs=config.jobs,
        logs=config.folder / "logs",
        on_start=lambda run: callbacks.on_start(run, positions[run.folder]),
        on_output=callbacks.on_output,
        on_finish=callbacks.on_finish,
        runner=runner,
    )
    results = {folder: _checked(result, config) for folder, result in results.items()}
    tables = Tables(
        ablation=ablation,
        tables=tuple(
            score_table(dataset, rows, results, ablation, config, callbacks.on_score)
            for dataset, rows in planned.items()
        ),
        settings=_shared_settings(runs),
        quick=config.quick,
        grid=grid_name(config.grid, 256),
        command=command(config),
        machine=_machine(config),
        created=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        nucseg=version("nucseg"),
    )
    write_files(config.folder, output_files(tables))
    n_failed = sum(bool(result.error) for result in results.values())
    n_skipped = sum(not result.error and not result.seconds for result in results.values())
    return AblateResult(
        folder=config.folder,
        page=config.folder / "ablation.html",
        tables=tables,
        n_trained=len(results) - n_failed - n_skipped,
        n_skipped=n_skipped,
        n_failed=n_failed,
    )


def _checked(result: JobResult, config: AblateConfig) -> JobResult:
    """The result of a training, failed if the run cannot be opened: a damaged run fails its row, not the table."""
    if result.error:
        return result
    try:
        Run.open(result.run, cache=config.cache)
    except (NucsegError, CacheError) as error:
        return replace(result, error=str(error))
    return result


def _shared_settings(runs: Sequence[TrainConfig]) -> dict[str, Any]:
    if not runs:
        return {}
    first, *others = [asdict(run) for run in runs]
    return {
        name: value
        for name, value in first.items()
        if name not in ("run", "resume", "cache")
        and value is not None
        and all(other[name] == value for other in others)
    }


def _machine(config: AblateConfig) -> str:
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() and config.device != "cpu" else ""
    return f"{gpu or f'{n_cores()} CPU cores ({platform.machine()})'}, torch {torch.__version__}"
