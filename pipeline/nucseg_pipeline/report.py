"""Stage three: trained runs -> a report of what they are worth on their test part."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nucseg.errors import ConfigError
from nucseg.instances import separate
from nucseg.metrics import check_same_images
from nucseg.metrics.instances import InstanceMap
from nucseg_cache import SampleRow
from nucseg_pipeline.config import ReportConfig
from nucseg_pipeline.report_files import check_writable, write_files
from nucseg_pipeline.report_findings import Findings, conclude
from nucseg_pipeline.report_page import Shown, page_text
from nucseg_pipeline.report_scores import ImageScores, RunScores, score_image
from nucseg_pipeline.report_text import csv_text, json_text, markdown_text
from nucseg_pipeline.runs import Run

Progress = Callable[[int, int, str], None]
"""Called with the number of predictions done, the number in all, and what is being done."""

MOST_NAMES = 3
"""A report of more runs than this is not named after every one of them."""


@dataclass(frozen=True)
class ReportResult:
    """What stage three made."""

    folder: Path
    page: Path
    """The report for people, one file."""
    findings: Findings


def report(config: ReportConfig, progress: Progress = lambda done, total, what: None) -> ReportResult:
    """Score finished runs on their test part and write per_image.csv, summary.json, summary.md and report.html.

    Raises:
        ConfigError: a folder is no finished run, runs cannot be compared, or the report cannot be written.
        DataError: a prediction is not finite.
        nucseg_cache.CacheError: the store of a run is gone, or damaged.
    """
    opened = [Run.open(path, cache=config.cache) for path in config.runs]
    runs = dict(zip(_names(config.runs), opened, strict=True))
    _check_comparable(runs, config)
    folder = config.out or Path("reports") / _report_name(list(runs))
    check_writable(folder)

    n_test = len(opened[0].split.test)
    meter = _Meter(progress, total=(n_test + min(n_test, config.n_overlays)) * len(runs))
    scores = [RunScores(name, _score(name, run, meter)) for name, run in runs.items()]
    findings = conclude(runs, scores, config, folder)
    chosen = _choose(scores[0].values("dice"), config.n_overlays, config.seed)
    shown = _predict_shown(runs, chosen, meter)

    write_files(
        folder,
        {
            "per_image.csv": csv_text(scores),
            "summary.json": json_text(findings),
            "summary.md": markdown_text(findings),
            "report.html": page_text(findings, scores, shown),
        },
    )
    return ReportResult(folder=folder, page=folder / "report.html", findings=findings)


@dataclass
class _Meter:
    """Counts predictions and tells the caller."""

    progress: Progress
    total: int
    done: int = 0

    def tick(self, what: str) -> None:
        self.done += 1
        self.progress(self.done, self.total, what)


def _score(name: str, run: Run, meter: _Meter) -> tuple[ImageScores, ...]:
    scores = []
    for prediction in run.predict(run.split.test):
        scores.append(score_image(prediction.sample, prediction.probability, run.rule))
        meter.tick(f"scoring {name}")
    return tuple(scores)


def _predict_shown(runs: Mapping[str, Run], chosen: Mapping[str, str], meter: _Meter) -> list[Shown]:
    """Predict the chosen images once more: holding the maps of all of them would take gigabytes."""
    ids = list(chosen)
    samples: dict[str, SampleRow] = {}
    instances: dict[str, dict[str, InstanceMap]] = {one: {} for one in ids}
    for name, run in runs.items():
        for prediction in run.predict(ids):
            one = prediction.sample.id
            samples[one] = prediction.sample
            instances[one][name] = separate(prediction.probability, run.rule)
            meter.tick("drawing")
    return [Shown(samples[one], why, instances[one]) for one, why in chosen.items()]


def _choose(dice: Mapping[str, float], n_images: int, seed: int) -> dict[str, str]:
    """Choose the images to show, id -> why: the median, the worst and the best, then some by chance."""
    ranked = sorted(dice, key=lambda one: (dice[one], one))
    reasons = {ranked[len(ranked) // 2]: "median", ranked[0]: "worst", ranked[-1]: "best"}
    others = [one for one in ranked if one not in reasons]
    drawn = np.random.default_rng(seed).permutation(len(others))
    chosen = reasons | {others[position]: "drawn by chance" for position in drawn}
    return dict(list(chosen.items())[:n_images])


def _names(paths: Sequence[Path]) -> list[str]:
    """Name runs after their folders, with as many parents as it takes to tell them apart."""
    parts = [path.resolve().parts for path in paths]
    depths = range(1, max(map(len, parts)) + 1)
    candidates = (["/".join(part[-depth:]) for part in parts] for depth in depths)
    return next(names for names in candidates if len(set(names)) == len(names))


def _report_name(names: Sequence[str]) -> str:
    shown = [name.replace("/", "-") for name in names]
    if len(shown) <= MOST_NAMES:
        return "-vs-".join(shown)
    return f"{shown[0]}-and-{len(shown) - 1}-others"


def _check_comparable(runs: Mapping[str, Run], config: ReportConfig) -> None:
    (first, baseline), *others = runs.items()
    for name, run in others:
        check_same_images(baseline.split.test, run.split.test, names=(first, name))
    if config.baseline and config.baseline not in runs:
        raise ConfigError(f"The baseline {config.baseline!r} is not among the runs: {', '.join(runs)}.")
