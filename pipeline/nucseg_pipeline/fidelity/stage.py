"""How far replayed embeddings are from true ones, for one encoder and one data set, and which replay to use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np

from nucseg.encoders import Encoder, open_encoder
from nucseg.errors import ConfigError
from nucseg_cache import Key
from nucseg_cache.formats import EMBEDDING_SHAPE, format_named
from nucseg_cache.key import differences
from nucseg_pipeline.config import FidelityConfig
from nucseg_pipeline.fidelity.motions import Move, chosen_moves
from nucseg_pipeline.fidelity.plots import bars, example
from nucseg_pipeline.fidelity.recommendation import Costs, advise
from nucseg_pipeline.fidelity.references import look
from nucseg_pipeline.fidelity.results import Measurements, Scores, choose
from nucseg_pipeline.fidelity.setup import Bench
from nucseg_pipeline.fidelity.text import Told, json_text, markdown_text
from nucseg_pipeline.files.publish import check_writable, write_files
from nucseg_pipeline.progress import Progress

EXAMPLE_ELEMENT = 5
"""The element of D4 that the example shows where it is measured: a quarter turn."""


@dataclass(frozen=True)
class FidelityResult:
    """What was measured, and where it is written."""

    folder: Path
    files: tuple[Path, ...]
    title: str
    """Data set, images, split and encoder, in one line."""
    lines: Mapping[str, Scores]
    """Motion -> replay -> measure -> value with its interval; first the mean over the turns and flips."""
    advice: tuple[str, ...]
    """Which replay to use, what it costs, and the commands."""
    notes: tuple[str, ...]
    """What a reader of the numbers has to know."""


def fidelity(config: FidelityConfig, progress: Progress = lambda done, total, what: None) -> FidelityResult:
    """Move native test images, encode them anew, and hold what each replay makes of the cached embedding against that.

    Pattern and mixing are learned from the training part as a training of the same split would. Reads the store, the
    native images and the encoder's weights; writes fidelity.json, fidelity.md, fidelity.png and fidelity-example.png,
    all of them or, when it is stopped, none. The store is only read.

    Raises:
        ConfigError: too few test images, embeddings that are not there or of another encoder, an unknown motion, or a
            folder that cannot be written.
        DataError: a native image is gone or is not the one that was embedded.
        nucseg_cache.CacheError: the store or its embeddings are missing, ambiguous or damaged.
    """
    check_writable(config.folder)
    moves = chosen_moves(config.transforms)
    bench = Bench.open(config)
    encoder = _open_encoder(config, bench.key)
    pace = _Pace(bench.n_encodings(moves), progress)
    learned = bench.learn(encoder, pace)
    found = Measurements(moves, learned.replays, bench.groups, config.seed)
    picture = b""
    for one in bench.measured:
        subject = bench.subject(one)
        for seen in look(subject, bench.drawn(moves, one), encoder, learned, pace):
            found.add(seen.move.name, one, seen.agreements(subject.native.shape[:2], learned))
            if one == bench.measured[0] and seen.move is _example(moves):
                picture = example(subject.native, seen, learned)
    told = _told(config, bench, encoder, pace, found)
    contents: dict[str, str | bytes] = {
        "fidelity.json": json_text(told),
        "fidelity.md": markdown_text(told),
        "fidelity.png": bars(told),
        "fidelity-example.png": picture,
    }
    write_files(config.folder, contents)
    files = tuple(config.folder / name for name in contents)
    return FidelityResult(config.folder, files, told.title, told.lines, told.advice, told.notes)


class _Pace:
    """Counts encodings, times them, and tells progress."""

    def __init__(self, total: int, progress: Progress) -> None:
        self.n_encoded, self.seconds = 0, 0.0
        self._total, self._progress = total, progress
        progress(0, total, "encoding")

    def __call__(self, n_images: int, seconds: float) -> None:
        """Take in one batch."""
        self.n_encoded += n_images
        self.seconds += seconds
        self._progress(self.n_encoded, self._total, "encoding")


def _told(config: FidelityConfig, bench: Bench, encoder: Encoder, pace: _Pace, found: Measurements) -> Told:
    each = pace.seconds / pace.n_encoded if pace.n_encoded else None
    mib = prod(EMBEDDING_SHAPE) * np.dtype(format_named(bench.key.fields["format"]).dtype).itemsize / 2**20
    measured, calibrating = bench.n_exact(bench.measured), bench.n_exact(bench.calibration)
    costs = Costs(
        n_images=len(bench.present),
        n_train=len(bench.parts.train),
        n_exact=bench.n_exact(bench.present),
        is_calibrated=calibrating == len(bench.calibration),
        seconds=each,
        mib=mib,
    )
    choices = tuple(choose(found, family) for family in found.families())
    return Told(
        config=config,
        location=bench.store.location,
        key=bench.key.fields,
        key_hash=bench.key.hash,
        protocol=bench.parts.protocol,
        notes=bench.notes,
        n_train=len(bench.parts.train),
        calibration=bench.calibration,
        n_exact=(measured, calibrating),
        provenance=encoder.provenance,
        n_encoded=pace.n_encoded,
        seconds_per_encoding=each,
        found=found,
        lines=found.lines(),
        choices=choices,
        advice=tuple(line for choice in choices for line in advise(choice, config, costs)),
    )


def _open_encoder(config: FidelityConfig, key: Key) -> Encoder:
    """The encoder that made the embeddings; ConfigError where the one asked for is another."""
    precision = key.fields.get("precision", config.precision)
    encoder = open_encoder(
        config.encoder, weights=config.weights, device=config.device, precision=precision, threads=config.threads
    )
    lines = differences(key.fields, encoder.identity)
    if lines:
        raise ConfigError(
            f"The embeddings {key.hash} were not made by this encoder:\n  " + "\n  ".join(lines) + "\n"
            "Name the encoder and the checkpoint (--weights) that made them, or run `nucseg embed` with these."
        )
    return encoder


def _example(moves: Sequence[Move]) -> Move:
    """The move that is shown."""
    return next((move for move in moves if move.element == EXAMPLE_ELEMENT), moves[0])
