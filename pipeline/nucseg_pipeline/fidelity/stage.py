"""Measure how far replayed embeddings are from true ones for an encoder and a data set, and recommend a replay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nucseg.encoders import Encoder, open_encoder
from nucseg.errors import ConfigError
from nucseg_cache.key import differences
from nucseg_pipeline.config import FidelityConfig
from nucseg_pipeline.fidelity.motions import MotionSpec, select_motions
from nucseg_pipeline.fidelity.plots import bars, example
from nucseg_pipeline.fidelity.recommendation import advise
from nucseg_pipeline.fidelity.references import evaluate_motions
from nucseg_pipeline.fidelity.results import Measurements, Scores, choose
from nucseg_pipeline.fidelity.setup import FidelitySetup
from nucseg_pipeline.fidelity.text import FidelityReport, json_text, markdown_text
from nucseg_pipeline.files.publish import check_writable, write_files
from nucseg_pipeline.progress import Progress
from nucseg_pipeline.runs.selection import embed_command

EXAMPLE_ELEMENT = 5
"""The element of D4 in the example figure, if it is measured: a quarter turn."""


@dataclass(frozen=True)
class FidelityResult:
    """The result of `fidelity`, and where it was written."""

    folder: Path
    files: tuple[Path, ...]
    title: str
    lines: Mapping[str, Scores]
    """Motion -> replay -> measure -> value with its interval; the mean over the turns and flips comes first."""
    advice: tuple[str, ...]
    notes: tuple[str, ...]


def fidelity(config: FidelityConfig, progress: Progress = lambda done, total, what: None) -> FidelityResult:
    """Move native test images, encode them, and compare the result with what each replay computes from the cache.

    Pattern and mixing are fitted to the training part, as a training with the same split would do. Reads the store, the
    native images and the encoder's weights. Writes fidelity.json, fidelity.md, fidelity.png and fidelity-example.png,
    all of them or, if interrupted, none.

    Raises:
        ConfigError: too few test images, missing embeddings or those of another encoder, an unknown motion, or a folder
            that cannot be written.
        DataError: a native image is missing or is not the one that was embedded.
        nucseg_cache.CacheError: the store or its embeddings are missing, ambiguous or damaged.
    """
    check_writable(config.folder)
    specs = select_motions(config.transforms)
    setup = FidelitySetup.open(config)
    encoder = _open_encoder(setup)
    timer = _EncodingTimer(setup.n_encodings(specs), progress)
    parameters = setup.fit_replay(encoder, timer)
    measurements = Measurements(specs, parameters.replays, setup.groups, config.seed)
    picture = b""
    for image_id in setup.measured:
        image = setup.image_embeddings(image_id)
        for result in evaluate_motions(image, setup.draw_motions(specs, image_id), encoder, parameters, timer):
            measurements.add(result.spec.name, image_id, result.agreements(image.native.shape[:2], parameters))
            if image_id == setup.measured[0] and result.spec is _example_spec(specs):
                picture = example(image.native, result, parameters)
    report = _report(setup, encoder, timer, measurements)
    contents: dict[str, str | bytes] = {
        "fidelity.json": json_text(report),
        "fidelity.md": markdown_text(report),
        "fidelity.png": bars(report),
        "fidelity-example.png": picture,
    }
    write_files(config.folder, contents)
    files = tuple(config.folder / name for name in contents)
    return FidelityResult(config.folder, files, report.title, report.lines, report.advice, setup.notes)


class _EncodingTimer:
    """Counts and times encodings, and reports progress."""

    def __init__(self, total: int, progress: Progress) -> None:
        self.n_encoded, self.seconds = 0, 0.0
        self._total, self._progress = total, progress
        progress(0, total, "encoding")

    def __call__(self, n_images: int, seconds: float) -> None:
        self.n_encoded += n_images
        self.seconds += seconds
        self._progress(self.n_encoded, self._total, "encoding")


def _report(
    setup: FidelitySetup, encoder: Encoder, timer: _EncodingTimer, measurements: Measurements
) -> FidelityReport:
    seconds = timer.seconds / timer.n_encoded if timer.n_encoded else None
    choices = tuple(
        choose(measurements, family) for family in dict.fromkeys(spec.family for spec in measurements.specs)
    )
    return FidelityReport(
        setup=setup,
        provenance=encoder.provenance,
        n_encoded=timer.n_encoded,
        seconds_per_encoding=seconds,
        measurements=measurements,
        lines=measurements.lines(),
        choices=choices,
        advice=tuple(line for choice in choices for line in advise(choice, setup, seconds)),
    )


def _open_encoder(setup: FidelitySetup) -> Encoder:
    """Open the configured encoder; ConfigError if the embeddings were made by another one."""
    config, key = setup.config, setup.key
    precision = key.fields.get("precision", config.precision)
    encoder = open_encoder(
        config.encoder, weights=config.weights, device=config.device, precision=precision, threads=config.threads
    )
    lines = differences(key.fields, encoder.identity)
    if lines:
        raise ConfigError(
            f"The embeddings {key.hash} were not made by this encoder:\n  " + "\n  ".join(lines) + "\n"
            "Name the encoder and checkpoint (--weights) that made them, or embed with these: "
            f"`{embed_command(setup.store, None, config.training)}`."
        )
    return encoder


def _example_spec(specs: Sequence[MotionSpec]) -> MotionSpec:
    return next((spec for spec in specs if spec.element == EXAMPLE_ELEMENT), specs[0])
