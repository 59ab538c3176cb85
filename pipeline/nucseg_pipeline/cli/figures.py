"""`nucseg figures`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nucseg_pipeline.cli import completion
from nucseg_pipeline.cli.console import notes, out, progress_bar


def figures(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of finished runs.")],
    images: Annotated[
        list[str] | None,
        typer.Option(
            "--image",
            metavar="ID",
            help="Test image to show; can be given several times. Default: chosen by the Dice of the first run.",
        ),
    ] = None,
    names: Annotated[
        list[str] | None,
        typer.Option(
            "--name", help="Name of a run in the figures, once for each in their order. Default: its folder's."
        ),
    ] = None,
    n_images: Annotated[
        int, typer.Option(help="How many to choose: the median, the worst, the best, then others by chance.")
    ] = 3,
    dataset: Annotated[
        str | None,
        typer.Option(
            autocompletion=completion.datasets,
            metavar="NAME",
            help="Data set in the cache whose images are shown, also one that the runs were not trained on. Default: "
            "the test part of each run.",
        ),
    ] = None,
    cache: Annotated[
        str | None, typer.Option(help="Folder or URL of the cache, where it has moved since the training.")
    ] = None,
    out_folder: Annotated[
        Path | None, typer.Option("--out", help="Folder of the figures. Default: figures/NAMES.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, mps, cuda or cuda:N.")] = "auto",
    file_format: Annotated[str, typer.Option("--format", metavar="png|pdf|svg", help="Format of the figures.")] = "png",
) -> None:
    """Draw the papers' figures from runs.

    Reads the run folders and the stores they were trained from. Writes encoders-IMAGE (the embedding of every encoder
    in the store as colours), levels-IMAGE (the layers of each network as colours), overlays (truth and what each run
    finds), violins (Dice per image) and README.md, which says what each shows.
    """
    from nucseg_pipeline.config import FiguresConfig
    from nucseg_pipeline.figures.stage import figures as figures_stage

    config = FiguresConfig(
        runs=tuple(runs),
        names=tuple(names or ()),
        images=tuple(images or ()),
        n_images=n_images,
        dataset=dataset,
        cache=cache,
        out=out_folder,
        device=device,
        format=file_format,
    )
    with progress_bar() as progress:
        result = figures_stage(config, progress)
    notes(result.notes)
    for file in result.files:
        out.print(file.name)
    out.print(f"figures: {result.folder}")
