"""What a report says of one data set: figures with intervals, comparisons, warnings, and where all of it comes from."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from typing import Any

import numpy as np

from nucseg.figures import Epoch
from nucseg.metrics import Interval, Reliability, Resampling, SizeBin, Spread, spread
from nucseg_pipeline.evaluation.comparison import Comparison, Stratum, by_stratum, compare_all
from nucseg_pipeline.evaluation.experiments import Configuration
from nucseg_pipeline.evaluation.scores import METRICS, RunScores, averaged
from nucseg_pipeline.evaluation.test_sets import TestSet
from nucseg_pipeline.report.warnings import cautions, few_groups_note, near_empty_warning
from nucseg_pipeline.runs.run import Run

PLACES = ("run", "resume")
"""Fields of a training's configuration that say where it was written, not what it was."""

Metrics = Mapping[str, Interval]
"""Every metric of a run, over the images that it was scored on."""

FORMAT = 2
"""Number of the format of summary.json."""


@dataclass(frozen=True)
class RunSummary:
    """What a report says of one run."""

    name: str
    folder: str
    metrics: Mapping[str, Interval]
    """Over the images that this run was scored on; empty where it was scored on none of this data set."""
    n_images: int
    """Images that this run was scored on."""
    configuration: Mapping[str, Any]
    rule: Mapping[str, float]
    """How probabilities become nuclei, chosen on the validation part."""
    n_train: int
    n_validation: int
    provenance: Mapping[str, Any]
    history: tuple[Epoch, ...]


@dataclass(frozen=True)
class ConfigurationSummary:
    """What a report says of one configuration: of its only run, or of all of its repeats together."""

    name: str
    trained_on: str
    """Name of the data set that it was trained on."""
    repeats: str
    """Which folds and seeds, in words; empty where it was trained once."""
    runs: tuple[str, ...]
    """Names of its runs."""
    metrics: Mapping[str, Interval]
    """Over all images, each with its mean over the runs that were scored on it."""
    spreads: Mapping[str, Spread]
    """Metric -> how its value spreads over folds, or over seeds of one fold; empty where it was trained once."""
    spread_over: str
    """What the spread is over, in words."""
    recall_by_size: tuple[SizeBin, ...]
    reliability: Reliability
    n_one_empty: int
    """Predictions where one of truth and prediction is empty: they count the image's diagonal in hd95."""
    n_predictions: int
    """Images, each as often as it was predicted."""


@dataclass(frozen=True)
class ReportSummary:
    """Everything that a report says of one data set, before it is written in one form or another."""

    dataset: str
    protocol: str
    notes: tuple[str, ...]
    """What a reader must know of the protocol, such as a leak between its parts, and of the data set."""
    warnings: tuple[str, ...]
    """What keeps the figures from meaning what they seem to mean."""
    grid: str
    """Name of the grid that everything was scored on."""
    n_images: int
    n_groups: int
    test_digest: str
    """Digest over id, image digest and mask digest of every image."""
    configurations: tuple[ConfigurationSummary, ...]
    runs: tuple[RunSummary, ...]
    all_background: Mapping[str, Interval]
    """The same metrics of a prediction that finds nothing."""
    n_one_empty_background: int
    """Images with nuclei: a prediction that finds nothing counts their diagonal in hd95."""
    baseline: str
    """Name of the configuration that the others are compared with."""
    comparisons: tuple[Comparison, ...]
    strata: tuple[Stratum, ...]
    resampling: Resampling
    command: str
    """The command that makes this report again."""
    created: str
    nucseg: str
    """Version of nucseg."""

    @property
    def repeated(self) -> tuple[ConfigurationSummary, ...]:
        """The configurations that were trained more than once."""
        return tuple(one for one in self.configurations if one.spreads)

    def as_json(self) -> dict[str, Any]:
        """Plain dictionaries and lists, as summary.json holds them."""
        whole = asdict(replace(self, configurations=(), runs=()))
        return {
            "format": FORMAT,
            "kind": "report",
            **whole,
            "configurations": {one.name: _plain(one) for one in self.configurations},
            "runs": {run.name: {**asdict(run), "history": [asdict(e) for e in run.history]} for run in self.runs},
            "comparisons": {comparison.name: asdict(comparison) for comparison in self.comparisons},
            "strata": {stratum.name: asdict(stratum) for stratum in self.strata},
        }


@dataclass(frozen=True)
class Made:
    """How, when and by what a report is made."""

    command: str
    created: str
    nucseg: str
    resampling: Resampling
    baseline: str
    """Name of a configuration, or of one of its runs; empty takes the first."""


def summarise(
    exam: TestSet,
    entrants: Sequence[Configuration],
    folders: Mapping[str, str],
    scores: Mapping[str, RunScores],
    grid: str,
    made: Made,
) -> tuple[ReportSummary, tuple[RunScores, ...]]:
    """Sum up the scores of some runs, given by name, on one data set.

    Returns the findings, and the scores of the configurations, each averaged over its runs.

    Raises:
        ConfigError: an image was scored against different masks by two of the runs.
    """
    columns = tuple(
        averaged(entrant.name, [scores[name] for name in entrant.runs if name in scores]) for entrant in entrants
    )
    chosen = next(position for position, one in enumerate(entrants) if made.baseline in ("", one.name, *one.runs))
    baseline = columns[chosen]
    draws, nothing = made.resampling, baseline.finding_nothing()
    metrics = {name: run.intervals(draws) for name, run in scores.items()}
    findings = ReportSummary(
        dataset=exam.store.dataset,
        protocol=exam.protocol,
        notes=tuple(dict.fromkeys((*exam.notes, *exam.store.notes, *few_groups_note(baseline)))),
        warnings=(*cautions(exam, entrants), *near_empty_warning(columns)),
        grid=grid,
        n_images=len(columns[0].images),
        n_groups=columns[0].n_groups,
        test_digest=_test_digest(columns[0]),
        configurations=tuple(
            _configuration(entrant, column, metrics, draws) for entrant, column in zip(entrants, columns, strict=True)
        ),
        runs=tuple(
            _run(name, run, folders[name], metrics.get(name, {}), len(exam.ids.get(name, ())))
            for entrant in entrants
            for name, run in entrant.runs.items()
        ),
        all_background=nothing.intervals(draws),
        n_one_empty_background=nothing.n_one_empty,
        baseline=baseline.name,
        comparisons=compare_all(baseline, [column for column in columns if column is not baseline], draws),
        strata=by_stratum(columns),
        resampling=draws,
        command=made.command,
        created=made.created,
        nucseg=made.nucseg,
    )
    return findings, columns


def _configuration(
    entrant: Configuration, column: RunScores, by_run: Mapping[str, Metrics], draws: Resampling
) -> ConfigurationSummary:
    over, values = _repeated_values(entrant, by_run)
    members = [by_run[name] for name in entrant.runs if name in by_run]
    return ConfigurationSummary(
        name=entrant.name,
        trained_on=entrant.dataset,
        repeats=entrant.repeats,
        runs=tuple(entrant.runs),
        metrics=column.intervals(draws) if len(members) > 1 else members[0],
        spreads={metric: spread([run[metric] for run in values]) for metric in METRICS if values},
        spread_over=over,
        recall_by_size=column.recall_by_size(draws),
        reliability=column.reliability,
        n_one_empty=column.n_one_empty,
        n_predictions=len(column.predictions),
    )


def _repeated_values(entrant: Configuration, by_run: Mapping[str, Metrics]) -> tuple[str, list[dict[str, float]]]:
    """What varies between the runs, and the metrics of each fold, or of each seed where there is only one fold.

    Seeds of one fold are averaged before folds are set against each other: a fold counts once, however often it was
    trained.
    """
    by_fold: dict[int, list[dict[str, float]]] = {}
    for name, run in entrant.runs.items():
        if name in by_run:
            values = {metric: interval.value for metric, interval in by_run[name].items()}
            by_fold.setdefault(run.config.fold, []).append(values)
    folds = [{name: float(np.mean([run[name] for run in runs])) for name in METRICS} for runs in by_fold.values()]
    if len(folds) > 1:
        seeds = max(map(len, by_fold.values())) > 1
        return f"{len(folds)} folds" + (", the seeds of a fold averaged first" if seeds else ""), folds
    seeds_of_one = next(iter(by_fold.values()))
    return (f"{len(seeds_of_one)} seeds", seeds_of_one) if len(seeds_of_one) > 1 else ("", [])


def _run(name: str, run: Run, folder: str, metrics: Metrics, n_images: int) -> RunSummary:
    return RunSummary(
        name=name,
        folder=folder,
        metrics=metrics,
        n_images=n_images,
        configuration={key: _plain(value) for key, value in asdict(run.config).items() if key not in PLACES},
        rule=asdict(run.rule),
        n_train=len(run.split.train),
        n_validation=len(run.split.validation),
        provenance=_plain(run.provenance),
        history=tuple(
            Epoch(int(row["epoch"]), float(row["train_loss"]), float(row["validation_dice"])) for row in run.history
        ),
    )


def _test_digest(scores: RunScores) -> str:
    lines = sorted(f"{image.id} {image.image_digest} {image.mask_digest}" for image in scores.images)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _plain(value: Any) -> Any:
    """Turn what may be nested, hold records, arrays and paths into what JSON knows."""
    if isinstance(value, Mapping):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return value if isinstance(value, bool | int | float | str | None) else str(value)
