"""Measure how far replayed and cached embeddings are from those of moved and recoloured images, and advise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nucseg.encoders import Encoder, open_encoder
from nucseg.errors import ConfigError
from nucseg.replay.fidelity import channel_means
from nucseg_cache.key import differences
from nucseg_pipeline.config import FidelityConfig
from nucseg_pipeline.fidelity.motions import MotionSpec, select_motions
from nucseg_pipeline.fidelity.photometric import ColourSpec, select_colours
from nucseg_pipeline.fidelity.plots import bars, colour_example, example
from nucseg_pipeline.fidelity.recommendation import advise, advise_colours
from nucseg_pipeline.fidelity.references import COLOUR_COLUMNS, ReplayParameters, evaluate_colours, evaluate_motions
from nucseg_pipeline.fidelity.results import ColourMeasurements, Measurements, Scores, choose, choose_colours
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
    colours: Mapping[str, Scores]
    """Change of colour -> `cached` or `cached, shifted` -> measure -> value with its interval."""
    advice: tuple[str, ...]
    notes: tuple[str, ...]


def fidelity(config: FidelityConfig, progress: Progress = lambda done, total, what: None) -> FidelityResult:
    """Move and recolour native test images, encode them, and compare the results with embeddings from the cache.

    An embedding is replayed as its image is moved, and left as it is where colours change. Pattern and mixing are
    fitted to the training part, as a training with the same split would do. Reads the store, the native images and the
    encoder's weights. Writes fidelity.json, fidelity.md, fidelity.png and fidelity-example.png, all of them or, if
    interrupted, none.

    Raises:
        ConfigError: too few test images, missing embeddings or those of another encoder, an unknown motion or change,
            or a folder that cannot be written.
        DataError: a native image is missing or is not the one that was embedded.
        nucseg_cache.CacheError: the store or its embeddings are missing, ambiguous or damaged.
    """
    check_writable(config.folder)
    specs, colour_specs = select_motions(config.transforms), select_colours(config.photometric)
    setup = FidelitySetup.open(config)
    encoder = _open_encoder(setup)
    timer = _EncodingTimer(setup.n_encodings(specs, len(colour_specs)), progress)
    parameters = setup.fit_replay(encoder, timer)
    motions, motions_picture = _measure_motions(specs, setup, encoder, parameters, timer)
    colours, colours_picture = _measure_colours(colour_specs, setup, encoder, parameters, timer)
    report = _report(setup, encoder, timer, motions, colours)
    contents: dict[str, str | bytes] = {
        "fidelity.json": json_text(report),
        "fidelity.md": markdown_text(report),
        "fidelity.png": bars(report),
        "fidelity-example.png": motions_picture or colours_picture,
    }
    write_files(config.folder, contents)
    files = tuple(config.folder / name for name in contents)
    return FidelityResult(
        config.folder, files, report.title, report.lines, report.colour_lines, report.advice, setup.notes
    )


def _measure_motions(
    specs: Sequence[MotionSpec],
    setup: FidelitySetup,
    encoder: Encoder,
    parameters: ReplayParameters,
    timer: _EncodingTimer,
) -> tuple[Measurements, bytes]:
    """The agreements under each motion, and a picture of the first image; empty without motions."""
    measurements = Measurements(specs, parameters.replays, setup.groups, setup.config.seed)
    picture = b""
    for image_id in setup.measured if specs else ():
        image = setup.image_embeddings(image_id)
        for result in evaluate_motions(image, setup.draw_motions(specs, image_id), encoder, parameters, timer):
            measurements.add(result.spec.name, image_id, result.agreements(image.native.shape[:2], parameters))
            if image_id == setup.measured[0] and result.spec is _example_spec(specs):
                picture = example(image.native, result, parameters)
    return measurements, picture


def _measure_colours(
    specs: Sequence[ColourSpec],
    setup: FidelitySetup,
    encoder: Encoder,
    parameters: ReplayParameters,
    timer: _EncodingTimer,
) -> tuple[ColourMeasurements, bytes]:
    """The agreements under each change of colour, and a picture of the first image; empty without changes."""
    measurements = ColourMeasurements(specs, COLOUR_COLUMNS, setup.groups, setup.config.seed)
    picture, means = b"", channel_means(parameters.pattern)
    for image_id in setup.measured if specs else ():
        image = setup.image_embeddings(image_id)
        changes = {spec.name: spec.change(setup.config.seed, image_id) for spec in specs}
        for result in evaluate_colours(image, changes, encoder, means, timer):
            measurements.add(result.name, image_id, result.agreements)
            measurements.add_grey_levels(result.name, image.native, result.changed)
            picture = picture or colour_example(image, result)
    return measurements, picture


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
    setup: FidelitySetup, encoder: Encoder, timer: _EncodingTimer, motions: Measurements, colours: ColourMeasurements
) -> FidelityReport:
    seconds = timer.seconds / timer.n_encoded if timer.n_encoded else None
    choices = tuple(choose(motions, family) for family in dict.fromkeys(spec.family for spec in motions.specs))
    colour_choice = choose_colours(colours, motions) if colours.specs else None
    advice = [line for choice in choices for line in advise(choice, setup, seconds)]
    if colour_choice is not None:
        advice += advise_colours(colour_choice, choices, setup, seconds)
    return FidelityReport(
        setup=setup,
        provenance=encoder.provenance,
        n_encoded=timer.n_encoded,
        seconds_per_encoding=seconds,
        motions=motions,
        colours=colours,
        choices=choices,
        colour_choice=colour_choice,
        advice=tuple(advice),
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
