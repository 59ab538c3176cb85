"""From finished runs to the rows of a table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from nucseg.data.official_splits import plain_name
from nucseg.errors import ConfigError, NucsegError
from nucseg_cache import CacheError
from nucseg_pipeline.ablate.jobs import JobResult
from nucseg_pipeline.ablate.plan import PlannedRow
from nucseg_pipeline.ablate.table import DONE, FAILED, NOT_RUN, Table, TableRow, common_repeats
from nucseg_pipeline.ablate.table_recipe import Ablation
from nucseg_pipeline.config import AblateConfig, ReportConfig, TrainConfig
from nucseg_pipeline.progress import Progress
from nucseg_pipeline.report.stage import report
from nucseg_pipeline.report.summary import ConfigurationSummary, ReportSummary
from nucseg_pipeline.runs.folder import RunFolder


def score_table(
    dataset: str,
    rows: Sequence[PlannedRow],
    outcomes: Mapping[Path, JobResult],
    ablation: Ablation,
    config: AblateConfig,
    progress: Progress,
) -> Table:
    """Score what is finished of one data set and put it beside what is published.

    All rows are scored on the folds and seeds that each of them has finished. Writes the report behind the table into a
    folder of the table's, named after the data set. What cannot be scored is told in its rows: hours of training must
    not end without a table.
    """
    try:
        return _scored(dataset, rows, outcomes, ablation, config, progress)
    except (NucsegError, CacheError) as error:
        why = f"its runs are finished, and cannot be scored: {error}"
        told = [_without_scores(row, dataset, outcomes) for row in rows]
        return Table(
            dataset=dataset, rows=tuple(replace(row, why=why) if row.status == FAILED else row for row in told)
        )


def _scored(
    dataset: str,
    rows: Sequence[PlannedRow],
    outcomes: Mapping[Path, JobResult],
    ablation: Ablation,
    config: AblateConfig,
    progress: Progress,
) -> Table:
    finished = {row.row.name: [run for run in row.runs if not outcomes[run.folder].error] for row in rows}
    finished = {name: runs for name, runs in finished.items() if runs}
    repeats = common_repeats([frozenset((run.fold, run.seed) for run in runs) for runs in finished.values()])
    scored = {name: [run for run in runs if (run.fold, run.seed) in repeats] for name, runs in finished.items()}
    own, same_as = _own_runs({name: runs for name, runs in scored.items() if runs})
    findings = _findings(dataset, own, same_as, ablation.baseline, config, progress) if own else None
    return Table(
        dataset=dataset,
        protocol=findings.protocol if findings else "",
        n_images=findings.n_images if findings else 0,
        n_groups=findings.n_groups if findings else 0,
        baseline=_baseline(own, same_as, ablation.baseline),
        rows=tuple(_row(row, dataset, scored, same_as, outcomes, findings) for row in rows),
        all_background=findings.all_background if findings else {},
        notes=(
            *_left_out(finished, repeats),
            *(findings.warnings if findings else ()),
            *(findings.notes if findings else ()),
        ),
        report=f"{dataset}/report.html" if findings else "",
    )


def _own_runs(scored: Mapping[str, list[TrainConfig]]) -> tuple[dict[str, list[TrainConfig]], dict[str, str]]:
    """Rows with runs of their own, and the others: row -> row with the very same runs."""
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


def _baseline(own: Mapping[str, object], same_as: Mapping[str, str], wanted: str) -> str:
    name = same_as.get(wanted, wanted)
    return name if name in own else next(iter(own), "")


def _findings(
    dataset: str,
    own: Mapping[str, Sequence[TrainConfig]],
    same_as: Mapping[str, str],
    baseline: str,
    config: AblateConfig,
    progress: Progress,
) -> ReportSummary:
    named = {_run_name(name, run, runs): run for name, runs in own.items() for run in runs}
    chosen = _baseline(own, same_as, baseline)
    result = report(
        ReportConfig(
            runs=tuple(run.folder for run in named.values()),
            names=tuple(named),
            baseline=_run_name(chosen, own[chosen][0], own[chosen]),
            grid=config.grid,
            cache=config.cache,
            out=config.folder / dataset,
        ),
        progress,
    )
    return result.findings[0]


def _run_name(row: str, run: TrainConfig, runs: Sequence[TrainConfig]) -> str:
    """Name a run of a row in the report: repeats end in what they differ in, which the row's own name then loses."""
    differ = [field for field in ("fold", "seed") if len({getattr(one, field) for one in runs}) > 1]
    return " ".join([row, *(f"{field} {getattr(run, field)}" for field in differ)])


def _row(
    planned: PlannedRow,
    dataset: str,
    scored: Mapping[str, Sequence[TrainConfig]],
    same_as: Mapping[str, str],
    outcomes: Mapping[Path, JobResult],
    findings: ReportSummary | None,
) -> TableRow:
    made, name = _without_scores(planned, dataset, outcomes), planned.row.name
    runs = scored.get(name, ())
    if not runs or findings is None:
        return made
    theirs = same_as.get(name, name)
    found = _of_runs(findings, [_run_name(theirs, run, runs) for run in runs])
    compared = next((one for one in findings.comparisons if one.name == found.name), None)
    return replace(
        made,
        status=DONE,
        why=_partly(planned, outcomes, made.why),
        same_as=same_as.get(name, ""),
        runs=tuple(str(run.folder) for run in runs),
        repeats=found.repeats,
        metrics=found.metrics,
        spreads=found.spreads,
        spread_over=found.spread_over,
        differences=compared.differences if compared else {},
    )


def _without_scores(planned: PlannedRow, dataset: str, outcomes: Mapping[Path, JobResult]) -> TableRow:
    """What can be said of a row before it is scored: of one that failed, why."""
    errors = [f"{run.name}: {outcomes[run.folder].error}" for run in planned.runs if outcomes[run.folder].error]
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


def _partly(planned: PlannedRow, outcomes: Mapping[Path, JobResult], why: str) -> str:
    n_failed = sum(bool(outcomes[run.folder].error) for run in planned.runs)
    return f"{n_failed} of {len(planned.runs)} runs failed: {why}" if n_failed else ""


def _left_out(finished: Mapping[str, Sequence[TrainConfig]], repeats: frozenset[tuple[int, int]]) -> tuple[str, ...]:
    """Say which folds and seeds are scored, where some rows have finished more."""
    most = {(run.fold, run.seed) for runs in finished.values() for run in runs}
    if most == repeats:
        return ()
    kept = ", ".join(f"fold {fold} seed {seed}" for fold, seed in sorted(repeats)) or "none"
    return (f"Of {len(most)} repeats that were finished, the rows are scored on those that all of them have: {kept}.",)


def _of_runs(findings: ReportSummary, names: Iterable[str]) -> ConfigurationSummary:
    wanted = set(names)
    return next(one for one in findings.configurations if wanted & set(one.runs))


def _training_seconds(run: TrainConfig) -> float:
    folder = RunFolder(run.folder)
    try:
        return sum(float(row["seconds"]) for row in folder.history())
    except (ConfigError, OSError, KeyError, ValueError):
        return 0.0
