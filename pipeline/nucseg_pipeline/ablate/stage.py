"""A table of the papers, or one of one's own: every run of it, finished ones skipped, the cache shared."""

from __future__ import annotations

import json
import platform
import shlex
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from nucseg.errors import NucsegError
from nucseg_cache import CacheError
from nucseg_pipeline.ablate.jobs import JobResult, TrainingRunner, n_cores, train_all
from nucseg_pipeline.ablate.markdown import tables_markdown
from nucseg_pipeline.ablate.page import ablation_page
from nucseg_pipeline.ablate.plan import PlannedRow, all_runs, plan_rows
from nucseg_pipeline.ablate.scoring import score_table
from nucseg_pipeline.ablate.table import Tables
from nucseg_pipeline.ablate.table_recipe import load_ablation
from nucseg_pipeline.config import AblateConfig, TrainConfig
from nucseg_pipeline.files.publish import check_writable, write_files
from nucseg_pipeline.progress import Progress
from nucseg_pipeline.runs.run import Run


@dataclass(frozen=True)
class AblateCallbacks:
    """Who is told how far a table is; every field is called with what its name says."""

    embedding: Progress
    planned: Callable[[PlannedRow], None]
    started: Callable[[TrainConfig, str], None]
    """A training, and where it stands among all, as in `3 of 25`."""
    told: Callable[[TrainConfig, str], None]
    """A training, and a line that it printed; from several threads."""
    ended: Callable[[TrainConfig, JobResult], None]
    scoring: Progress


@dataclass(frozen=True)
class AblateResult:
    """What was made."""

    folder: Path
    page: Path
    tables: Tables
    n_trained: int
    n_skipped: int
    """Runs that were finished before."""
    n_failed: int

    @property
    def is_whole(self) -> bool:
        """Whether every training is finished, and at least one row of every data set has scores."""
        return not self.n_failed and all(table.done for table in self.tables.tables)


def ablate(config: AblateConfig, watch: AblateCallbacks, trainer: TrainingRunner | None = None) -> AblateResult:
    """Make the table of a recipe: embed what is missing, train what is not finished, score, compare, write.

    Writes `<out>/ablation.{html,md,json}`, the report behind each table in `<out>/<dataset>/`, a log for each training
    in `<out>/logs/`, and the runs in `config.runs`. Rows that cannot be run say so; a training that crashes is told,
    and the others go on. All rows of a data set are scored on the folds and seeds that every one of them has.

    Args:
        config: which table, and where.
        watch: who is told.
        trainer: how a training is run; None takes processes of their own.

    Raises:
        ConfigError: the recipe, or the folder of the table, cannot be used. Nothing was changed.
    """
    ablation = load_ablation(config.recipe)
    check_writable(config.folder)
    planned = {
        dataset: plan_rows(ablation, dataset, config, watch.embedding, watch.planned)
        for dataset in config.datasets or ablation.datasets
    }
    runs = all_runs([row for rows in planned.values() for row in rows])
    order = {run.folder: f"{position} of {len(runs)}" for position, run in enumerate(runs, start=1)}
    outcomes = train_all(
        runs,
        jobs=config.jobs,
        logs=config.folder / "logs",
        started=lambda run: watch.started(run, order[run.folder]),
        told=watch.told,
        ended=watch.ended,
        trainer=trainer,
    )
    outcomes = {folder: _opened(outcome, config) for folder, outcome in outcomes.items()}
    tables = Tables(
        ablation=ablation,
        tables=tuple(
            score_table(dataset, rows, outcomes, ablation, config, watch.scoring) for dataset, rows in planned.items()
        ),
        settings=_shared(runs),
        quick=config.quick,
        grid="native grid" if config.grid == "native" else "256 px grid",
        command=_command(config),
        machine=_machine(config),
        created=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        nucseg=version("nucseg"),
    )
    texts = {
        "ablation.json": json.dumps(tables.as_json(), indent=1, default=str),
        "ablation.md": tables_markdown(tables),
        "ablation.html": ablation_page(tables),
    }
    write_files(config.folder, texts)
    failed = sum(bool(outcome.error) for outcome in outcomes.values())
    skipped = sum(not outcome.error and not outcome.seconds for outcome in outcomes.values())
    return AblateResult(
        folder=config.folder,
        page=config.folder / "ablation.html",
        tables=tables,
        n_trained=len(outcomes) - failed - skipped,
        n_skipped=skipped,
        n_failed=failed,
    )


def _opened(outcome: JobResult, config: AblateConfig) -> JobResult:
    """The outcome of a training, failed if what it left cannot be used: a damaged run costs its row, not the table."""
    if outcome.error:
        return outcome
    try:
        Run.open(outcome.run, cache=config.cache)
    except (NucsegError, CacheError) as error:
        return replace(outcome, error=str(error))
    return outcome


def _shared(runs: Sequence[TrainConfig]) -> dict[str, Any]:
    """The settings that all runs have in common."""
    if not runs:
        return {}
    columns = [asdict(run) for run in runs]
    shared = {name: value for name, value in columns[0].items() if all(one[name] == value for one in columns)}
    return {
        name: value for name, value in shared.items() if value is not None and name not in ("run", "resume", "cache")
    }


def _command(config: AblateConfig) -> str:
    words = ["nucseg", "ablate", config.recipe]
    for field in fields(config):
        value = getattr(config, field.name)
        if field.name == "recipe" or value in (field.default, None, ()) or value is False:
            continue
        option = {"datasets": "--dataset", "seeds": "--seed"}.get(field.name, f"--{field.name}")
        for one in value if isinstance(value, tuple) else [value]:
            words += [option] if value is True else [option, str(one)]
    return shlex.join(words)


def _machine(config: AblateConfig) -> str:
    """What the times are of."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() and config.device != "cpu" else ""
    return f"{gpu or f'{n_cores()} CPU cores ({platform.machine()})'}, torch {torch.__version__}"
