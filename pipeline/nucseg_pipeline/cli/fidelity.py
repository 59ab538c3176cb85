"""`nucseg fidelity`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nucseg_pipeline.cli import completion
from nucseg_pipeline.cli.console import notes, out, progress_bar, table

if TYPE_CHECKING:
    from nucseg_pipeline.fidelity.results import Scores


def fidelity(
    dataset: Annotated[
        str,
        typer.Option(
            autocompletion=completion.datasets, metavar="NAME", help="Name of the data set, as it was embedded."
        ),
    ],
    source: Annotated[
        Path | None, typer.Option(help="Folder of the native images. Default: where the store was made from.")
    ] = None,
    encoder: Annotated[
        str,
        typer.Option(
            autocompletion=completion.encoders,
            help="The encoder of the embeddings: vit_b, vit_l, vit_h, student, onnx:FILE, random.",
        ),
    ] = "vit_b",
    weights: Annotated[Path | None, typer.Option(help="Its checkpoint. Default: $NUCSEG_WEIGHTS, user cache.")] = None,
    precision: Annotated[str, typer.Option(help="Precision of the embeddings; auto takes any.")] = "auto",
    format: Annotated[  # noqa: A002 - the option's name
        str | None, typer.Option(help="Storage format of the embeddings: f16, f32, i8, i6. Default: any.")
    ] = None,
    split: Annotated[str, typer.Option(help="official, grouped, kfold, paper.")] = "official",
    fold: Annotated[int, typer.Option(help="Which fold is the test part, from 0.")] = 0,
    seed: Annotated[int, typer.Option(help="Of the split, the images, their motions and the bootstrap.")] = 0,
    images: Annotated[int, typer.Option(help="Test images to measure.")] = 16,
    calibration_images: Annotated[
        int, typer.Option(help="Training images that show how turns mix the channels; 0 leaves learned replay out.")
    ] = 8,
    transforms: Annotated[
        list[str] | None,
        typer.Option(
            "--transform",
            metavar="NAME|FILE",
            help="Motion to measure; can be given several times: d4, papers, the name of one, or a file of "
            "transforms. Default: D4, small affine and elastic ones, and a few mild ones.",
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, mps, cuda or cuda:N.")] = "auto",
    threads: Annotated[int | None, typer.Option(help="CPU threads. Default: torch's choice.")] = None,
    cache: Annotated[
        str | None, typer.Option(help="Folder or URL of the cache. Default: $NUCSEG_CACHE, user cache.")
    ] = None,
    out_folder: Annotated[
        Path | None, typer.Option("--out", help="Folder of the result. Default: fidelity/DATASET.")
    ] = None,
) -> None:
    """Measure how far replayed embeddings are from true ones, and say which replay to use.

    Reads CACHE/DATASET.zarr, the native images and the encoder's weights: moved test images are encoded anew, 14 times
    each by default. Writes fidelity.json, fidelity.md, fidelity.png and fidelity-example.png.
    """
    from nucseg_pipeline.config import FidelityConfig, default_cache
    from nucseg_pipeline.fidelity.stage import fidelity as fidelity_stage

    config = FidelityConfig(
        dataset=dataset, source=source, cache=cache or default_cache(), encoder=encoder, weights=weights,
        precision=precision, format=format, split=split, fold=fold, seed=seed, images=images,
        calibration_images=calibration_images, transforms=tuple(transforms or ()), device=device, threads=threads,
        out=out_folder,
    )  # fmt: skip
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
    """The errors: a table in a terminal, one line a motion elsewhere."""
    replays = list(next(iter(lines.values())))
    rows = [[name, *(_error(scores, replay) for replay in replays)] for name, scores in lines.items()]
    if out.is_terminal:
        out.print(table(f"Error of the replayed embedding: {title}", ["motion", *replays], rows))
        return
    out.print(f"error of the replayed embedding: {title}")
    for name, *cells in rows:
        told = ", ".join(f"{replay} {cell}" for replay, cell in zip(replays, cells, strict=True))
        out.print(f"{name}: {told}")


def _error(scores: Scores, replay: str) -> str:
    error = scores[replay]["error"]
    ends = "" if error.low is None or error.high is None else f" ({error.low:.3f} to {error.high:.3f})"
    return f"{error.value:.3f}{ends}"
