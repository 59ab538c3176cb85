"""The content of a report on one data set: scores with intervals, comparisons, warnings and provenance."""

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
from nucseg_pipeline.evaluation.score_runs import average_configurations
from nucseg_pipeline.evaluation.scores import METRICS, RunScores
from nucseg_pipeline.evaluation.test_sets import TestSet
from nucseg_pipeline.report.warnings import few_groups_note, near_empty_warning, no_nuclei_note, report_warnings
from nucseg_pipeline.runs.run import Run

PLACES = ("run", "resume")
"""Fields of a training configuration that say where the run was written, not how it was trained."""

Metrics = Mapping[str, Interval]
"""Every metric of a run, over the images that it was scored on."""

FORMAT = 2


@dataclass(frozen=True)
class RunSummary:
    """Scores, settings and provenance of one run."""

    name: str
    folder: str
    metrics: Mapping[str, Interval]
    """Over the images that this run was scored on; empty if it was scored on none of this data set."""
    n_images: int
    configuration: Mapping[str, Any]
    rule: Mapping[str, float]
    """Threshold and separation of nuclei, chosen on the validation part."""
    n_train: int
    n_validation: int
    provenance: Mapping[str, Any]
    history: tuple[Epoch, ...]


@dataclass(frozen=True)
class ConfigurationSummary:
    """Scores of one configuration: of its only run, or of all of its repeats together."""

    name: str
    trained_on: str
    repeats: str
    runs: tuple[str, ...]
    metrics: Mapping[str, Interval]
    """Over all images; the score of an image is the mean over the runs that were scored on it."""
    spreads: Mapping[str, Spread]
    """Metric -> spread over folds, or over seeds of one fold; empty for a single run."""
    spread_over: str
    recall_by_size: tuple[SizeBin, ...]
    reliability: Reliability
    n_one_empty: int
    """Predictions where exactly one of truth and prediction is empty: hd95 is the image's diagonal there."""
    n_predictions: int
    """Images, each as often as it was predicted."""


@dataclass(frozen=True)
class ReportSummary:
    """The content of a report on one data set, as summary.json holds it."""

    dataset: str
    protocol: str
    notes: tuple[str, ...]
    """What a reader must know about the protocol, such as a leak between its parts, and about the data set."""
    warnings: tuple[str, ...]
    grid: str
    n_images: int
    not_scored: tuple[str, ...]
    """Further test images, in which every pixel is ignored."""
    n_without_nuclei: int
    """Scored images without true nuclei: by the published rule, a prediction without nuclei scores 1 on them."""
    n_groups: int
    test_digest: str
    """Digest of id, image digest and mask digest of every image."""
    configurations: tuple[ConfigurationSummary, ...]
    runs: tuple[RunSummary, ...]
    all_background: Mapping[str, Interval]
    """The same metrics of an empty prediction."""
    n_one_empty_background: int
    """Images with nuclei: hd95 of an empty prediction is their diagonal."""
    baseline: str
    comparisons: tuple[Comparison, ...]
    strata: tuple[Stratum, ...]
    resampling: Resampling
    command: str
    created: str
    nucseg: str

    @property
    def repeated(self) -> tuple[ConfigurationSummary, ...]:
        """The configurations that were trained more than once."""
        return tuple(configuration for configuration in self.configurations if configuration.spreads)

    def as_json(self) -> dict[str, Any]:
        """Plain dictionaries and lists, as summary.json holds them."""
        whole = asdict(replace(self, configurations=(), runs=()))
        return {
            "format": FORMAT,
            "kind": "report",
            **whole,
            "configurations": {configuration.name: _plain(configuration) for configuration in self.configurations},
            "runs": {run.name: {**asdict(run), "history": [asdict(e) for e in run.history]} for run in self.runs},
            "comparisons": {comparison.name: asdict(comparison) for comparison in self.comparisons},
            "strata": {stratum.name: asdict(stratum) for stratum in self.strata},
        }


@dataclass(frozen=True)
class ReportProvenance:
    """The command, time and version that a report is made with."""

    command: str
    created: str
    nucseg: str
    resampling: Resampling
    baseline: str
    """Name of a configuration, or of one of its runs; empty takes the first."""


def summarise(
    test_set: TestSet,
    configurations: Sequence[Configuration],
    folders: Mapping[str, str],
    scores: Mapping[str, RunScores],
    grid: str,
    provenance: ReportProvenance,
) -> tuple[ReportSummary, tuple[RunScores, ...]]:
    """Summarise the scores of some runs, given by name, on one data set.

    Returns the summary, and the scores of the configurations, each averaged over its runs.

    Raises:
        ConfigError: an image was scored against different masks by two of the runs.
    """
    columns = average_configurations(configurations, scores)
    wanted = provenance.baseline
    chosen = next(i for i, item in enumerate(configurations) if wanted in ("", item.name, *item.runs))
    baseline, draws = columns[chosen], provenance.resampling
    empty = baseline.all_background()
    metrics = {name: run.intervals(draws) for name, run in scores.items()}
    summary = ReportSummary(
        dataset=test_set.store.dataset,
        protocol=test_set.protocol,
        notes=tuple(
            dict.fromkeys(
                (*test_set.notes, *test_set.store.notes, *few_groups_note(baseline), *no_nuclei_note(baseline))
            )
        ),
        warnings=(*report_warnings(test_set, configurations), *near_empty_warning(columns)),
        grid=grid,
        n_images=len(columns[0].images),
        not_scored=test_set.not_scored_ids,
        n_without_nuclei=sum(image.n_true == 0 for image in columns[0].images),
        n_groups=columns[0].n_groups,
        test_digest=_test_digest(columns[0]),
        configurations=tuple(
            _configuration(configuration, column, metrics, draws)
            for configuration, column in zip(configurations, columns, strict=True)
        ),
        runs=tuple(
            _run(name, run, folders[name], metrics.get(name, {}), len(test_set.ids.get(name, ())))
            for configuration in configurations
            for name, run in configuration.runs.items()
        ),
        all_background=empty.intervals(draws),
        n_one_empty_background=empty.n_one_empty,
        baseline=baseline.name,
        comparisons=compare_all(baseline, [column for column in columns if column is not baseline], draws),
        strata=by_stratum(columns),
        resampling=draws,
        command=provenance.command,
        created=provenance.created,
        nucseg=provenance.nucseg,
    )
    return summary, columns


def _configuration(
    configuration: Configuration, column: RunScores, by_run: Mapping[str, Metrics], draws: Resampling
) -> ConfigurationSummary:
    spread_over, values = _repeated_values(configuration, by_run)
    members = [by_run[name] for name in configuration.runs if name in by_run]
    return ConfigurationSummary(
        name=configuration.name,
        trained_on=configuration.dataset,
        repeats=configuration.repeats,
        runs=tuple(configuration.runs),
        metrics=column.intervals(draws) if len(members) > 1 else members[0],
        spreads={metric: spread([run[metric] for run in values]) for metric in METRICS if values},
        spread_over=spread_over,
        recall_by_size=column.recall_by_size(draws),
        reliability=column.reliability,
        n_one_empty=column.n_one_empty,
        n_predictions=len(column.predictions),
    )


def _repeated_values(configuration: Configuration, by_run: Mapping[str, Metrics]) -> tuple[str, list[dict[str, float]]]:
    """What varies between the runs, and the metrics of each fold, or of each seed if there is only one fold.

    Seeds of a fold are averaged first, so that every fold has the same weight however often it was trained.
    """
    by_fold: dict[int, list[dict[str, float]]] = {}
    for name, run in configuration.runs.items():
        if name in by_run:
            values = {metric: interval.value for metric, interval in by_run[name].items()}
            by_fold.setdefault(run.config.fold, []).append(values)
    folds = [{name: float(np.mean([run[name] for run in runs])) for name in METRICS} for runs in by_fold.values()]
    if len(folds) > 1:
        has_seeds = max(map(len, by_fold.values())) > 1
        return f"{len(folds)} folds" + (", averaged over the seeds of each fold" if has_seeds else ""), folds
    seeds = next(iter(by_fold.values()))
    return (f"{len(seeds)} seeds", seeds) if len(seeds) > 1 else ("", [])


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
    """Turn nested records, arrays and paths into JSON types."""
    if isinstance(value, Mapping):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return value if isinstance(value, bool | int | float | str | None) else str(value)
