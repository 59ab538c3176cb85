"""From finished runs to the rows of a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import replace
from pathlib import Path

from nucseg.data.official_splits import plain_name
from nucseg.errors import ConfigError, NucsegError
from nucseg_cache import CacheError
from nucseg_pipeline.ablate.jobs import JobResult
from nucseg_pipeline.ablate.plan import PlannedRow
from nucseg_pipeline.ablate.table import DONE, FAILED, NOT_RUN, Table, TableRow
from nucseg_pipeline.ablate.table_recipe import Ablation
from nucseg_pipeline.config import AblateConfig, ReportConfig, TrainConfig
from nucseg_pipeline.progress import Progress
from nucseg_pipeline.report.stage import report
from nucseg_pipeline.report.summary import ReportSummary
from nucseg_pipeline.runs.folder import RunFolder


def score_table(
    dataset: str,
    rows: Sequence[PlannedRow],
    results: Mapping[Path, JobResult],
    ablation: Ablation,
    config: AblateConfig,
    progress: Progress,
) -> Table:
    """Score the finished runs of one data set and add the published scores.

    All rows are scored on the folds and seeds that every row has finished. Writes the report on these runs into a
    folder named after the data set. If scoring fails, the rows state the reason: hours of training must not end without
    a table.
    """
    try:
        return _score(dataset, rows, results, ablation, config, progress)
    except (NucsegError, CacheError) as error:
        why = f"its runs are finished but cannot be scored: {error}"
        unscored = [_without_scores(row, dataset, results) for row in rows]
        return Table(
            dataset=dataset, rows=tuple(replace(row, why=why) if row.status == FAILED else row for row in unscored)
        )


def _score(
    dataset: str,
    rows: Sequence[PlannedRow],
    results: Mapping[Path, JobResult],
    ablation: Ablation,
    config: AblateConfig,
    progress: Progress,
) -> Table:
    finished = {row.row.name: [run for run in row.runs if not results[run.folder].error] for row in rows}
    finished = {name: runs for name, runs in finished.items() if runs}
    done = [{(run.fold, run.seed) for run in runs} for runs in finished.values()]
    repeats = set.intersection(*done) if done else set()
    scored = {name: [run for run in runs if (run.fold, run.seed) in repeats] for name, runs in finished.items()}
    own, same_as = _own_runs({name: runs for name, runs in scored.items() if runs})
    if not own:
        unscored = tuple(_without_scores(row, dataset, results) for row in rows)
        return Table(dataset=dataset, rows=unscored, notes=_excluded_repeats(finished, repeats))
    wanted = same_as.get(ablation.baseline, ablation.baseline)
    baseline = wanted if wanted in own else next(iter(own))
    summary = _report(dataset, own, baseline, config, progress)
    return Table(
        dataset=dataset,
        protocol=summary.protocol,
        n_images=summary.n_images,
        n_groups=summary.n_groups,
        baseline=baseline,
        rows=tuple(_row(row, dataset, scored, same_as, results, summary) for row in rows),
        all_background=summary.all_background,
        notes=(*_excluded_repeats(finished, repeats), *summary.warnings, *summary.notes),
        report=f"{dataset}/report.html",
    )


def _own_runs(scored: Mapping[str, list[TrainConfig]]) -> tuple[dict[str, list[TrainConfig]], dict[str, str]]:
    """Rows with runs of their own, and row -> earlier row for rows with the same runs."""
    own: dict[str, list[TrainConfig]] = {}
    same_as: dict[str, str] = {}
    for name, runs in scored.items():
        folders = [run.folder for run in runs]
        twin = next((other for other, theirs in own.items() if [run.folder for run in theirs] == folders), None)
        if twin is None:
            own[name] = runs
        else:
            same_as[name] = twin
    return own, same_as


def _report(
    dataset: str, own: Mapping[str, Sequence[TrainConfig]], baseline: str, config: AblateConfig, progress: Progress
) -> ReportSummary:
    named = {_run_name(name, run, runs): run for name, runs in own.items() for run in runs}
    result = report(
        ReportConfig(
            runs=tuple(run.folder for run in named.values()),
            names=tuple(named),
            baseline=_run_name(baseline, own[baseline][0], own[baseline]),
            grid=config.grid,
            cache=config.cache,
            out=config.folder / dataset,
            device=config.device,
        ),
        progress,
    )
    return result.summaries[0]


def _run_name(row: str, run: TrainConfig, runs: Sequence[TrainConfig]) -> str:
    """Name a run in the report: the row's name, and fold and seed if the row's runs differ in them.

    The report drops fold and seed again when it names the configuration.
    """
    differing = [field for field in ("fold", "seed") if len({getattr(other, field) for other in runs}) > 1]
    return " ".join([row, *(f"{field} {getattr(run, field)}" for field in differing)])


def _row(
    planned: PlannedRow,
    dataset: str,
    scored: Mapping[str, Sequence[TrainConfig]],
    same_as: Mapping[str, str],
    results: Mapping[Path, JobResult],
    summary: ReportSummary,
) -> TableRow:
    row, name = _without_scores(planned, dataset, results), planned.row.name
    runs = scored.get(name, ())
    if not runs:
        return row
    reported_as = same_as.get(name, name)
    names = {_run_name(reported_as, run, runs) for run in runs}
    configuration = next(item for item in summary.configurations if names & set(item.runs))
    comparison = next((item for item in summary.comparisons if item.name == configuration.name), None)
    return replace(
        row,
        status=DONE,
        why=_partly_failed(planned, results, row.why),
        same_as=same_as.get(name, ""),
        runs=tuple(str(run.folder) for run in runs),
        repeats=configuration.repeats,
        metrics=configuration.metrics,
        spreads=configuration.spreads,
        spread_over=configuration.spread_over,
        differences=comparison.differences if comparison else {},
    )


def _without_scores(planned: PlannedRow, dataset: str, results: Mapping[Path, JobResult]) -> TableRow:
    """The row before it is scored, with the errors of its runs."""
    errors = [f"{run.name}: {results[run.folder].error}" for run in planned.runs if results[run.folder].error]
    no_common = "its finished runs are of other folds or seeds than those of the other rows"
    return TableRow(
        name=planned.row.name,
        status=NOT_RUN if planned.why_not else FAILED,
        why=planned.why_not or "; ".join(errors) or no_common,
        published=planned.row.published.get(plain_name(dataset), {}),
        n_encoded=planned.n_encoded,
        n_parameters=planned.n_parameters,
        seconds=sum(map(_training_seconds, planned.runs)),
    )


def _partly_failed(planned: PlannedRow, results: Mapping[Path, JobResult], why: str) -> str:
    n_failed = sum(bool(results[run.folder].error) for run in planned.runs)
    return f"{n_failed} of {len(planned.runs)} runs failed: {why}" if n_failed else ""


def _excluded_repeats(finished: Mapping[str, Sequence[TrainConfig]], repeats: Set[tuple[int, int]]) -> tuple[str, ...]:
    """Say which folds and seeds are scored, if some rows have finished more."""
    most = {(run.fold, run.seed) for runs in finished.values() for run in runs}
    if most == repeats:
        return ()
    kept = ", ".join(f"fold {fold} seed {seed}" for fold, seed in sorted(repeats)) or "none"
    return (f"Of {len(most)} finished repeats, the rows are scored on those that all of them have: {kept}.",)


def _training_seconds(run: TrainConfig) -> float:
    folder = RunFolder(run.folder)
    try:
        return sum(float(row["seconds"]) for row in folder.history())
    except (ConfigError, OSError, KeyError, ValueError):
        return 0.0
