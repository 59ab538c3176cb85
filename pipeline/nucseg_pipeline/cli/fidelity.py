"""`nucseg fidelity`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from nucseg_pipeline.cli.console import notes, out, progress_bar, table
from nucseg_pipeline.cli.options import options_from
from nucseg_pipeline.config import FidelityConfig

if TYPE_CHECKING:
    from nucseg_pipeline.fidelity.results import Scores


@options_from(
    FidelityConfig,
    {
        "Data": "dataset source cache split fold images calibration_images seed",
        "Embeddings": "encoder weights precision format",
        "Augmentation": "transforms",
        "Machine": "device threads",
        "Output": "out",
    },
    flags={"transforms": "--transform"},
)
def fidelity(config: FidelityConfig) -> None:
    """Measure how far replayed embeddings are from exact ones, and recommend a replay.

    Reads CACHE/DATASET.zarr, the native images and the encoder's weights: it encodes the transformed test images, by
    default 14 times each. Writes fidelity.json, fidelity.md, fidelity.png and fidelity-example.png.
    """
    from nucseg_pipeline.fidelity.stage import fidelity as fidelity_stage

    with progress_bar() as progress:
        result = fidelity_stage(config, progress)
    notes(result.notes)
    _show(result.title, result.lines)
    for line in result.advice:
        out.print(line)
    for file in result.files:
        out.print(file.name)
    out.print(f"fidelity: {result.folder}")


def _show(title: str, lines: Mapping[str, Scores]) -> None:
    """Print the errors: a table in a terminal, one line per motion elsewhere."""
    replays = list(next(iter(lines.values())))
    rows = [[name, *(_error(scores, replay) for replay in replays)] for name, scores in lines.items()]
    if out.is_terminal:
        out.print(table(f"Error of the replayed embedding: {title}", ["motion", *replays], rows))
        return
    out.print(f"error of the replayed embedding: {title}")
    for name, *cells in rows:
        errors = ", ".join(f"{replay} {cell}" for replay, cell in zip(replays, cells, strict=True))
        out.print(f"{name}: {errors}")


def _error(scores: Scores, replay: str) -> str:
    error = scores[replay]["error"]
    ends = "" if error.low is None or error.high is None else f" ({error.low:.3f} to {error.high:.3f})"
    return f"{error.value:.3f}{ends}"
