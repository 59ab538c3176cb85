"""The result as JSON and as Markdown."""

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
from nucseg_pipeline.config import FidelityConfig
from nucseg_pipeline.fidelity.results import Choice, Measurements, Scores
from nucseg_pipeline.formatting import bounds, number

FORMAT = 1
"""Number of the format of fidelity.json."""

LIBRARIES = ("nucseg", "torch", "numpy", "albumentations", "zarr")

DEFINITIONS = (
    "Error is sum (t - r)^2 / sum (t - m)^2 over the cells that came from inside the images: t the embedding of the "
    "moved image, r the replayed one, m the channel means of the training embeddings; 1 is the error of m. Cosine is "
    "the mean over cells of the cosine between t and r, centred cosine that between t - m and r - m. In brackets the "
    "95 % bootstrap interval, whole groups drawn where images have groups.",
    "Replays: unmoved leaves the embedding as it was; plain is T(e); corrected P + T(e - P), P the mean embedding of "
    "each cell over the training part; learned P + M T(e - P), M fitted for each element of D4 to exact views of "
    "training images; views takes the exact view of the element, and does the rest as corrected: on D4 alone it has "
    "no error by definition.",
    "A bend is replayed by moving cells: what is learned or exact concerns only the flip or turn that it begins with.",
)


@dataclass(frozen=True, eq=False)
class Told:
    """Everything that the files say."""

    config: FidelityConfig
    location: str
    """Of the store."""
    key: Mapping[str, str]
    """Fields of the embeddings' key."""
    key_hash: str
    protocol: str
    notes: tuple[str, ...]
    n_train: int
    """Training images behind P and m."""
    calibration: tuple[str, ...]
    """Training images behind M."""
    n_exact: tuple[int, int]
    """Measured and calibration images of which the store holds all exact views."""
    provenance: Mapping[str, str]
    """Versions and device of the encoder."""
    n_encoded: int
    seconds_per_encoding: float | None
    found: Measurements
    lines: Mapping[str, Scores]
    choices: tuple[Choice, ...]
    advice: tuple[str, ...]

    @property
    def title(self) -> str:
        """What was measured, in one line."""
        n_images, n_groups = len(self.found.groups), len(set(self.found.groups.values()))
        return (
            f"{self.config.dataset}, {n_images} test images of {n_groups} groups ({self.protocol}, fold "
            f"{self.config.fold}), {label({k: v for k, v in self.key.items() if k in ('architecture', 'weights')})}"
        )


def json_text(told: Told) -> str:
    """Everything, for programs."""
    per_image = [
        {"move": move, "replay": replay, "image": one, **{m: _finite(of_image(sums, m)) for m in MEASURES},
         "n_cells": sums.n_cells}
        for (move, replay), images in told.found.found.items()
        for one, sums in images.items()
    ]  # fmt: skip
    content = {
        "format": FORMAT,
        "config": {**asdict(told.config), "folder": str(told.config.folder)},
        "store": told.location,
        "key": {"hash": told.key_hash, **told.key},
        "protocol": told.protocol,
        "notes": told.notes,
        "training_images": told.n_train,
        "calibration_images": told.calibration,
        "images": told.found.groups,
        "exact_views_in_store": {"images": told.n_exact[0], "calibration_images": told.n_exact[1]},
        "encodings": {"n": told.n_encoded, "seconds_each": told.seconds_per_encoding},
        "versions": {**_versions(), **told.provenance},
        "lines": {line: _plain(scores) for line, scores in told.lines.items()},
        "choices": [asdict(choice) for choice in told.choices],
        "advice": told.advice,
        "per_image": per_image,
    }
    return json.dumps(content, indent=1, allow_nan=False, default=str) + "\n"


def markdown_text(told: Told) -> str:
    """The tables and what they rest on, for people."""
    lines = [
        "# How far replayed embeddings are from true ones",
        "",
        f"{told.title}.",
        "",
        "![Error by motion and replay](fidelity.png)",
        "",
        "## What to use",
        "",
        *_paragraphs(told.advice),
        "",
        "## Error",
        "",
        *_table(told, "error", with_bounds=True),
        "",
        "## Cosine / centred cosine",
        "",
        *_table(told, "cosine", "centred_cosine"),
        "",
        "## What the numbers are",
        "",
        *(f"- {line}" for line in DEFINITIONS),
        *(f"- {note}" for note in told.notes),
        "",
        "## What they rest on",
        "",
        f"- Store: {told.location}, embeddings {told.key_hash}: {label(told.key)}",
        f"- Split: {told.protocol}, fold {told.config.fold}, seed {told.config.seed}; {told.n_train} training images",
        f"- Calibration: {len(told.calibration)} training images",
        f"- True embeddings: {_encodings(told)}",
        f"- Versions: {label({**_versions(), **told.provenance})}",
    ]
    return "\n".join(lines) + "\n"


def _paragraphs(advice: tuple[str, ...]) -> list[str]:
    """The advice with a blank line wherever text and commands meet."""
    lines: list[str] = []
    for line in advice:
        is_command = line.startswith("    ")
        if lines and not (is_command and lines[-1].startswith("    ")):
            lines.append("")
        lines.append(line if is_command else line.strip())
    return lines


def _table(told: Told, *measures: str, with_bounds: bool = False) -> list[str]:
    replays = told.found.replays
    rows = [f"| motion | {' | '.join(replays)} |", f"|---|{'---:|' * len(replays)}"]
    for name, scores in told.lines.items():
        cells = (" / ".join(_cell(scores[one][m], with_bounds=with_bounds) for m in measures) for one in replays)
        rows.append(f"| {name} | {' | '.join(cells)} |")
    return rows


def _cell(interval: Interval, *, with_bounds: bool) -> str:
    bounded = with_bounds and interval.low is not None
    return number(interval.value) + (f" ({bounds(interval)})" if bounded else "")


def _encodings(told: Told) -> str:
    each = "" if told.seconds_per_encoding is None else f" of {told.seconds_per_encoding:.2f} s"
    measured, calibrating = told.n_exact
    return (
        f"{told.n_encoded} encodings{each}; of {measured} of {len(told.found.groups)} measured and {calibrating} of "
        f"{len(told.calibration)} calibration images the exact views of D4 were in the store"
    )


def _plain(scores: Scores) -> dict[str, Any]:
    return {replay: {m: asdict(one) for m, one in values.items()} for replay, values in scores.items()}


def _finite(value: float) -> float | None:
    return value if value == value else None


def _versions() -> dict[str, str]:
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in LIBRARIES}}
