"""What a report says: figures with intervals, comparisons, warnings, and where all of it comes from."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from nucseg.figures import Epoch
from nucseg.metrics import Interval, Resampling
from nucseg_pipeline.config import ReportConfig
from nucseg_pipeline.report_compare import Comparison, Stratum, by_stratum, compare
from nucseg_pipeline.report_scores import RunScores
from nucseg_pipeline.runs import Run

PLACES = ("run", "resume")
"""Fields of a training's configuration that say where it was written, not what it was."""

FORMAT = 1
"""Number of the format of summary.json."""


@dataclass(frozen=True)
class RunFindings:
    """What a report says of one run."""

    name: str
    folder: str
    metrics: Mapping[str, Interval]
    configuration: Mapping[str, Any]
    rule: Mapping[str, float]
    """How probabilities become nuclei, chosen on the validation part."""
    n_train: int
    n_validation: int
    provenance: Mapping[str, Any]
    history: tuple[Epoch, ...]


@dataclass(frozen=True)
class Findings:
    """Everything that a report says, before it is written in one form or another."""

    dataset: str
    protocol: str
    notes: tuple[str, ...]
    """What a reader must know of the protocol, such as a leak between its parts."""
    warnings: tuple[str, ...]
    """What keeps the figures from meaning what they seem to mean."""
    grid_px: int
    n_images: int
    n_groups: int
    test_digest: str
    """Digest over id, image digest and mask digest of every test image."""
    runs: tuple[RunFindings, ...]
    all_background: Mapping[str, Interval]
    """The same metrics of a prediction that finds nothing."""
    comparisons: tuple[Comparison, ...]
    strata: tuple[Stratum, ...]
    resampling: Resampling
    command: str
    """The command that makes this report again."""
    created: str
    nucseg: str
    """Version of nucseg."""

    def as_json(self) -> dict[str, Any]:
        """Plain dictionaries and lists, as summary.json holds them."""
        return {
            "format": FORMAT,
            **asdict(self),
            "runs": {run.name: {**asdict(run), "history": [asdict(e) for e in run.history]} for run in self.runs},
            "comparisons": {comparison.name: asdict(comparison) for comparison in self.comparisons},
            "strata": {stratum.name: asdict(stratum) for stratum in self.strata},
        }


def conclude(
    runs: Mapping[str, Run],
    scores: Sequence[RunScores],
    config: ReportConfig,
    folder: Path,
) -> Findings:
    """Sum up the scores of some runs, given by name, on one test part."""
    draws = Resampling(n_resamples=config.n_resamples, seed=config.seed)
    first, images = next(iter(runs.values())), scores[0].images
    baseline = next(run for run in scores if run.name == (config.baseline or scores[0].name))
    return Findings(
        dataset=first.store.dataset,
        protocol=first.split.protocol,
        notes=tuple(dict.fromkeys(note for run in runs.values() for note in run.split.notes)),
        warnings=_warnings(runs),
        grid_px=int(first.store.preparation.get("side_px", config.grid)),
        n_images=len(images),
        n_groups=len(set(scores[0].groups.values())),
        test_digest=_test_digest(scores[0]),
        runs=tuple(
            _run_findings(runs[run.name], path, run, draws) for path, run in zip(config.runs, scores, strict=True)
        ),
        all_background=scores[0].finding_nothing().intervals(draws),
        comparisons=tuple(compare(baseline, run, draws) for run in scores if run is not baseline),
        strata=by_stratum(scores),
        resampling=draws,
        command=_command(config, folder),
        created=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        nucseg=version("nucseg"),
    )


def _run_findings(run: Run, folder: Path, scores: RunScores, draws: Resampling) -> RunFindings:
    return RunFindings(
        name=scores.name,
        folder=str(folder),
        metrics=scores.intervals(draws),
        configuration={name: _plain(value) for name, value in asdict(run.config).items() if name not in PLACES},
        rule=asdict(run.rule),
        n_train=len(run.split.train),
        n_validation=len(run.split.validation),
        provenance=_plain(run.provenance),
        history=tuple(
            Epoch(int(row["epoch"]), float(row["train_loss"]), float(row["validation_dice"])) for row in run.history
        ),
    )


def _warnings(runs: Mapping[str, Run]) -> tuple[str, ...]:
    warnings = []
    if any(run.store.dataset.partition("@")[0] == "synthetic" for run in runs.values()):
        warnings.append(
            "The images are synthetic: drawn by nucseg, not photographed. The figures show that every stage works; "
            "they say nothing about tissue."
        )
    names_by_note: dict[str, list[str]] = {}
    for name, run in runs.items():
        names_by_note.setdefault(_encoder_note(run), []).append(name)
    return (*warnings, *(f"{', '.join(names)}: {note}" for note, names in names_by_note.items() if note))


def _encoder_note(run: Run) -> str:
    """Say what the encoder of a run says of itself; one of random weights is named in any case."""
    note = str(run.provenance.get("encoder_note", ""))
    if not note and run.provenance.get("embedding", {}).get("architecture") == "random":
        return "The encoder has random weights: its embeddings carry no knowledge of nuclei."
    return note


def _test_digest(scores: RunScores) -> str:
    lines = sorted(f"{image.id} {image.image_digest} {image.mask_digest}" for image in scores.images)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _command(config: ReportConfig, folder: Path) -> str:
    words = ["nucseg", "report", *map(str, config.runs), "--out", str(folder)]
    options = {"--cache": config.cache, "--baseline": config.baseline}
    return shlex.join([*words, *(word for name, value in options.items() if value for word in (name, value))])


def _plain(value: Any) -> Any:
    """Turn what may be nested and hold paths into what JSON knows."""
    if isinstance(value, Mapping):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return value if isinstance(value, bool | int | float | str | None) else str(value)
