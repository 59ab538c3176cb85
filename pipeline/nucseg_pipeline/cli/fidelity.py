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
        "Augmentation": "transforms photometric",
        "Machine": "device threads",
        "Output": "out",
    },
    flags={"transforms": "--transform"},
)
def fidelity(config: FidelityConfig) -> None:
    """Measure the error of cached embeddings when images move or change colour, and recommend a replay.

    Reads CACHE/DATASET.zarr, the native images and the encoder's weights: it encodes the moved test images, by default
    14 times each, and the images in other colours, by default 8 times each. Writes fidelity.json, fidelity.md,
    fidelity.png and fidelity-example.png.
    """
    from nucseg_pipeline.fidelity.stage import fidelity as fidelity_stage

    with progress_bar() as progress:
        result = fidelity_stage(config, progress)
    notes(result.notes)
    _show(f"Error of the replayed embedding: {result.title}", "motion", result.lines)
    _show(f"Error of the cached embedding under a change of colour: {result.title}", "change", result.colours)
    for line in result.advice:
        out.print(line)
    for file in result.files:
        out.print(file.name)
    out.print(f"fidelity: {result.folder}")


def _show(title: str, row: str, lines: Mapping[str, Scores]) -> None:
    """Print errors, if there are any: a table in a terminal, one line per motion or change elsewhere."""
    if not lines:
        return
    columns = list(next(iter(lines.values())))
    rows = [[name, *(_error(scores, column) for column in columns)] for name, scores in lines.items()]
    if out.is_terminal:
        out.print(table(title, [row, *columns], rows))
        return
    out.print(title)
    for name, *cells in rows:
        errors = ", ".join(f"{column} {cell}" for column, cell in zip(columns, cells, strict=True))
        out.print(f"{name}: {errors}")


def _error(scores: Scores, replay: str) -> str:
    error = scores[replay]["error"]
    ends = "" if error.low is None or error.high is None else f" ({error.low:.3f} to {error.high:.3f})"
    return f"{error.value:.3f}{ends}"
