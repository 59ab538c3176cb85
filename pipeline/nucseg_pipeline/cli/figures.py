"""`nucseg figures`."""

from __future__ import annotations

import typer

from nucseg_pipeline.cli.console import notes, out, progress_bar
from nucseg_pipeline.cli.options import options_from
from nucseg_pipeline.config import FiguresConfig


@options_from(
    FiguresConfig,
    {"Data": "images n_images dataset cache", "Machine": "device", "Output": "out names format"},
    arguments={"runs": typer.Argument(metavar="RUN")},
    flags={"names": "--name", "images": "--image"},
)
def figures(config: FiguresConfig) -> None:
    """Draw figures of runs as in the publications.

    Reads the run folders and the stores they were trained from. Writes encoders-IMAGE (the embedding of every encoder
    in the store as colours), levels-IMAGE (the layers of each network as colours), overlays (ground truth and the
    prediction of each run), violins (Dice per image) and README.md, which explains each figure.
    """
    from nucseg_pipeline.figures.stage import figures as figures_stage

    with progress_bar() as progress:
        result = figures_stage(config, progress)
    notes(result.notes)
    for file in result.files:
        out.print(file.name)
    out.print(f"figures: {result.folder}")
