"""The results as JSON and as Markdown."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import Any

from nucseg.metrics.statistics import Interval
from nucseg.replay.fidelity import MEASURES, of_image
from nucseg_cache.key import label
from nucseg_pipeline.fidelity.results import Choice, Measurements, Scores
from nucseg_pipeline.fidelity.setup import FidelitySetup
from nucseg_pipeline.formatting import bounds, number

FORMAT = 1

LIBRARIES = ("nucseg", "torch", "numpy", "albumentations", "zarr")

DEFINITIONS = (
    "Error is sum (t - r)^2 / sum (t - m)^2 over the cells inside the images: t is the embedding of the moved image, r "
    "the replayed one, m the channel means of the training embeddings; m itself has error 1. Cosine is the mean over "
    "cells of the cosine between t and r, centred cosine that between t - m and r - m. Brackets give the 95 % "
    "bootstrap interval, which resamples whole groups if images have groups.",
    "Replays: unmoved leaves the embedding unchanged; plain is T(e); corrected is P + T(e - P), where P is the mean "
    "embedding of each cell over the training part; learned is P + M T(e - P), where M is fitted for each element of "
    "D4 to exact views of training images; views uses the exact view of the element and continues as corrected: for D4 "
    "alone its error is 0 by definition.",
    "A deformation is replayed by moving cells; learned mixing and exact views affect only the flip or turn before it.",
)


@dataclass(frozen=True, eq=False)
class FidelityReport:
    """Everything that the files contain."""

    setup: FidelitySetup
    provenance: Mapping[str, str]
    """Versions and device of the encoder."""
    n_encoded: int
    seconds_per_encoding: float | None
    measurements: Measurements
    lines: Mapping[str, Scores]
    choices: tuple[Choice, ...]
    advice: tuple[str, ...]

    @property
    def title(self) -> str:
        """Data set, images, split and encoder, in one line."""
        config, groups = self.setup.config, self.measurements.groups
        encoder = {k: v for k, v in self.setup.key.fields.items() if k in ("architecture", "weights")}
        return (
            f"{config.dataset}, {len(groups)} test images of {len(set(groups.values()))} groups "
            f"({self.setup.parts.protocol}, fold {config.fold}), {label(encoder)}"
        )

    @property
    def versions(self) -> dict[str, str]:
        """Versions of Python and libraries, and the encoder's provenance."""
        libraries = {name: metadata.version(name) for name in LIBRARIES}
        return {"python": platform.python_version(), **libraries, **self.provenance}

    @property
    def n_exact(self) -> tuple[int, int]:
        """Measured and calibration images with all exact views in the store."""
        return self.setup.n_exact(self.setup.measured), self.setup.n_exact(self.setup.calibration)


def json_text(report: FidelityReport) -> str:
    """All results as JSON."""
    per_image = [
        {"move": motion, "replay": replay, "image": image_id, "n_cells": agreement.n_cells,
         **{m: _finite(of_image(agreement, m)) for m in MEASURES}}
        for (motion, replay), images in report.measurements.agreements.items()
        for image_id, agreement in images.items()
    ]  # fmt: skip
    setup = report.setup
    content = {
        "format": FORMAT,
        "config": {**asdict(setup.config), "folder": str(setup.config.folder)},
        "store": setup.store.location,
        "key": {"hash": setup.key.hash, **setup.key.fields},
        "protocol": setup.parts.protocol,
        "notes": setup.notes,
        "training_images": len(setup.parts.train),
        "calibration_images": setup.calibration,
        "images": report.measurements.groups,
        "exact_views_in_store": {"images": report.n_exact[0], "calibration_images": report.n_exact[1]},
        "encodings": {"n": report.n_encoded, "seconds_each": report.seconds_per_encoding},
        "versions": report.versions,
        "lines": {line: _plain(scores) for line, scores in report.lines.items()},
        "choices": [asdict(choice) for choice in report.choices],
        "advice": report.advice,
        "per_image": per_image,
    }
    return json.dumps(content, indent=1, allow_nan=False, default=str) + "\n"


def markdown_text(report: FidelityReport) -> str:
    """Tables, definitions and inputs as Markdown."""
    setup = report.setup
    lines = [
        "# How far replayed embeddings are from true ones",
        "",
        f"{report.title}.",
        "",
        "![Error by motion and replay](fidelity.png)",
        "",
        "## Recommendation",
        "",
        *_paragraphs(report.advice),
        "",
        "## Error",
        "",
        *_table(report, "error", with_bounds=True),
        "",
        "## Cosine / centred cosine",
        "",
        *_table(report, "cosine", "centred_cosine"),
        "",
        "## Definitions",
        "",
        *(f"- {line}" for line in DEFINITIONS),
        *(f"- {note}" for note in setup.notes),
        "",
        "## Inputs",
        "",
        f"- Store: {setup.store.location}, embeddings {setup.key.hash}: {label(setup.key.fields)}",
        f"- Split: {setup.parts.protocol}, fold {setup.config.fold}, seed {setup.config.seed}; "
        f"{len(setup.parts.train)} training images",
        f"- Calibration: {len(setup.calibration)} training images",
        f"- True embeddings: {_encodings(report)}",
        f"- Versions: {label(report.versions)}",
    ]
    return "\n".join(lines) + "\n"


def _paragraphs(advice: tuple[str, ...]) -> list[str]:
    """The advice with a blank line between text and commands."""
    lines: list[str] = []
    for line in advice:
        is_command = line.startswith("    ")
        if lines and not (is_command and lines[-1].startswith("    ")):
            lines.append("")
        lines.append(line if is_command else line.strip())
    return lines


def _table(report: FidelityReport, *measures: str, with_bounds: bool = False) -> list[str]:
    replays = report.measurements.replays
    rows = [f"| motion | {' | '.join(replays)} |", f"|---|{'---:|' * len(replays)}"]
    for name, scores in report.lines.items():
        cells = (" / ".join(_cell(scores[replay][m], with_bounds=with_bounds) for m in measures) for replay in replays)
        rows.append(f"| {name} | {' | '.join(cells)} |")
    return rows


def _cell(interval: Interval, *, with_bounds: bool) -> str:
    bounded = with_bounds and interval.low is not None
    return number(interval.value) + (f" ({bounds(interval)})" if bounded else "")


def _encodings(report: FidelityReport) -> str:
    each = "" if report.seconds_per_encoding is None else f" of {report.seconds_per_encoding:.2f} s"
    measured, calibrating = report.n_exact
    return (
        f"{report.n_encoded} encodings{each}; {measured} of {len(report.measurements.groups)} measured and "
        f"{calibrating} of {len(report.setup.calibration)} calibration images had all exact views of D4 in the store"
    )


def _plain(scores: Scores) -> dict[str, Any]:
    return {replay: {m: asdict(interval) for m, interval in values.items()} for replay, values in scores.items()}


def _finite(value: float) -> float | None:
    return value if value == value else None
