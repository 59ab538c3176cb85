"""The results as JSON and as Markdown."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib import metadata
from statistics import fmean
from typing import Any

from nucseg.replay.fidelity import MEASURES, of_image
from nucseg_cache.key import label
from nucseg_pipeline.fidelity.results import Choice, ColourChoice, ColourMeasurements, Measurements, Scores
from nucseg_pipeline.fidelity.setup import FidelitySetup
from nucseg_pipeline.formatting import markdown_table, number, with_bounds

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

COLOUR_DEFINITION = (
    "Under a change of colour, t is the embedding of the image in other colours, and r the cached one. In the column "
    "shifted, r is the cached embedding plus the mean over cells of t - r in each image: the error that is left if a "
    "network ignores what all cells of an image have in common. Grey levels: the mean absolute difference that the "
    "change makes to the pixels, of 255. Native images are changed; a training changes prepared ones, in which the "
    "same blur or compression is stronger if they are smaller."
)


@dataclass(frozen=True, eq=False)
class FidelityReport:
    """Everything that the files contain."""

    setup: FidelitySetup
    provenance: Mapping[str, str]
    """Versions and device of the encoder."""
    n_encoded: int
    seconds_per_encoding: float | None
    motions: Measurements
    colours: ColourMeasurements
    choices: tuple[Choice, ...]
    colour_choice: ColourChoice | None
    """None if no change of colour was measured."""
    advice: tuple[str, ...]

    @cached_property
    def lines(self) -> Mapping[str, Scores]:
        """Motion -> its scores; the mean over the turns and flips comes first."""
        return self.motions.lines()

    @cached_property
    def colour_lines(self) -> Mapping[str, Scores]:
        """Change of colour -> its scores."""
        return self.colours.lines()

    @property
    def title(self) -> str:
        """Data set, images, split and encoder, in one line."""
        config, groups = self.setup.config, self.setup.groups
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
        "images": setup.groups,
        "exact_views_in_store": {"images": report.n_exact[0], "calibration_images": report.n_exact[1]},
        "encodings": {"n": report.n_encoded, "seconds_each": report.seconds_per_encoding},
        "versions": report.versions,
        "lines": {line: _plain(scores) for line, scores in report.lines.items()},
        "colours": {line: _plain(scores) for line, scores in report.colour_lines.items()},
        "choices": [asdict(choice) for choice in report.choices],
        "colour_choice": None if report.colour_choice is None else report.colour_choice.to_json(),
        "advice": report.advice,
        "per_image": [*_per_image(report.motions), *_per_image(report.colours)],
    }
    return json.dumps(content, indent=1, allow_nan=False, default=str) + "\n"


def _per_image(measurements: Measurements) -> list[dict[str, Any]]:
    return [
        {"transform": name, "replay": replay, "image": image_id, "n_cells": agreement.n_cells,
         **{m: _finite(of_image(agreement, m)) for m in MEASURES}}
        for (name, replay), images in measurements.agreements.items()
        for image_id, agreement in images.items()
    ]  # fmt: skip


def markdown_text(report: FidelityReport) -> str:
    """Tables, definitions and inputs as Markdown."""
    setup = report.setup
    lines = [
        "# How far embeddings from the cache are from true ones",
        "",
        f"{report.title}.",
        "",
        "![Error by motion and replay, and by change of colour](fidelity.png)",
        "",
        "## Recommendation",
        "",
        *_paragraphs(report.advice),
        "",
        *_tables(report),
        "## Definitions",
        "",
        *(f"- {line}" for line in (*DEFINITIONS, COLOUR_DEFINITION)),
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


def _tables(report: FidelityReport) -> Iterator[str]:
    """The errors and cosines under motions and changes of colour, as far as there are any."""
    motions = {name: [name] for name in report.lines}
    colours = {
        spec.name: [spec.name, spec.family, f"{fmean(report.colours.grey_levels[spec.name]):.0f}"]
        for spec in report.colours.specs
    }
    for title, head, words, lines in (
        ("Motions", ("motion", *report.motions.replays), motions, report.lines),
        ("Colours", ("change", "kind", "grey levels", *report.colours.replays), colours, report.colour_lines),
    ):
        if lines:
            yield from (f"## {title}: error", "", *_table(head, words, lines, "error"))
            yield from (f"## {title}: cosine / centred cosine", "")
            yield from _table(head, words, lines, "cosine", "centred_cosine")


def _table(
    head: Sequence[str], words: Mapping[str, Sequence[str]], lines: Mapping[str, Scores], *measures: str
) -> Iterator[str]:
    """Lines of a table: the words of each row, and its measures; a single measure with its interval."""
    write = with_bounds if len(measures) == 1 else lambda interval: number(interval.value)
    rows = [
        [*words[name], *(" / ".join(write(scores[column][m]) for m in measures) for column in scores)]
        for name, scores in lines.items()
    ]
    return markdown_table(head, rows, n_words=min(2, len(next(iter(words.values())))))


def _encodings(report: FidelityReport) -> str:
    each = "" if report.seconds_per_encoding is None else f" of {report.seconds_per_encoding:.2f} s"
    measured, calibrating = report.n_exact
    return (
        f"{report.n_encoded} encodings{each}; {measured} of {len(report.setup.measured)} measured and "
        f"{calibrating} of {len(report.setup.calibration)} calibration images had all exact views of D4 in the store"
    )


def _plain(scores: Scores) -> dict[str, Any]:
    return {replay: {m: asdict(interval) for m, interval in values.items()} for replay, values in scores.items()}


def _finite(value: float) -> float | None:
    return value if value == value else None
