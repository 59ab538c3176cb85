"""`nucseg embed`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nucseg_pipeline.cli import completion
from nucseg_pipeline.cli.console import clock, notes, out, progress_bar

if TYPE_CHECKING:
    from nucseg_pipeline.config import EmbedConfig
    from nucseg_pipeline.embed.estimate import DiskEstimate, TimeEstimate
    from nucseg_pipeline.embed.stage import EmbedResult


def embed(
    dataset: Annotated[
        str | None,
        typer.Option(
            autocompletion=completion.datasets,
            help="nuinsseg, cryonuseg, conic, dsb2018, synthetic, or your name for a folder of images/ and masks/. "
            "Needed, unless a recipe names it.",
        ),
    ] = None,
    source: Annotated[
        Path | None, typer.Option(help="Folder of the data set. Default: where it was last time, $NUCSEG_DATA, ./data.")
    ] = None,
    encoder: Annotated[
        str | None,
        typer.Option(
            autocompletion=completion.encoders,
            help="vit_b (default), vit_l, vit_h, student (small, comes with the package), student:FILE, onnx:FILE, "
            "random, or none: images and masks alone.",
        ),
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="Checkpoint of the encoder. Default: $NUCSEG_WEIGHTS, user cache.")
    ] = None,
    format: Annotated[  # noqa: A002 - the option's name
        str | None,
        typer.Option(help="How embeddings are stored: f16 (default), f32 (exactly), i8 (half), i6 (a third)."),
    ] = None,
    views: Annotated[
        str | None,
        typer.Option(
            help="What is embedded beside each image as it is: identity (default), nothing; d4, its seven other "
            "orientations; stain, papers, or the FILE of a photometric recipe, its variants in other colours."
        ),
    ] = None,
    view_images: Annotated[
        int | None,
        typer.Option(help="Views of so many images only, drawn by id; 16 are enough for `train --replay learned`."),
    ] = None,
    stain: Annotated[
        str | None,
        typer.Option(
            help="Stain normalisation, to fixed colours: none (default), macenko, reinhard. Its store is "
            "DATASET@STAIN, and --dataset DATASET@STAIN says the same."
        ),
    ] = None,
    device: Annotated[str | None, typer.Option(help="auto (default), cpu, cuda, cuda:N, mps.")] = None,
    precision: Annotated[
        str | None, typer.Option(help="auto (default: bfloat16 on CUDA, else float32), float32, bfloat16, float16.")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images at once. Default: by device and memory.")] = None,
    threads: Annotated[
        int | None, typer.Option(help="CPU threads, of each worker where there are several. Default: torch's choice.")
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            help="Encode in N processes on this machine, one for each GPU, or each with a share of the cores."
        ),
    ] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(help="Encode on your Dask cluster: its address (tcp://HOST:PORT, tls://...) or scheduler file."),
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Only the first N images.")] = None,
    recipe: Annotated[
        str | None, typer.Option(autocompletion=completion.recipes, help="Name or file of a recipe; options beat it.")
    ] = None,
    cache: Annotated[
        str | None, typer.Option(help="Folder or URL of the cache. Default: $NUCSEG_CACHE, user cache.")
    ] = None,
) -> None:
    """Stage one: embed a data set with a frozen SAM encoder and cache the result.

    Reads the data set's images and masks, and the encoder's weights. Writes CACHE/DATASET.zarr; with --stain, which
    changes the images themselves, CACHE/DATASET@STAIN.zarr beside it. A second run encodes only what is new or changed;
    a killed run goes on where it stopped; embeddings of another encoder, precision or format live beside the first, and
    so do views. What the embeddings still to make will take on disk is told, and checked, before the first of them.
    """
    from nucseg_pipeline.config import EmbedConfig
    from nucseg_pipeline.config.recipe import load_recipe, resolve

    options = {
        "dataset": dataset, "source": source, "encoder": encoder, "weights": weights, "format": format,
        "views": views, "view_images": view_images, "stain": stain, "device": device, "precision": precision,
        "batch_size": batch_size, "threads": threads, "workers": workers, "scheduler": scheduler, "limit": limit,
        "cache": cache,
    }  # fmt: skip
    config = resolve(EmbedConfig, load_recipe(recipe, "embed") if recipe else {}, options)
    run_embed(config)


def run_embed(config: EmbedConfig) -> None:
    """Run stage one and say what came out."""
    from nucseg_pipeline.embed.stage import embed as embed_stage

    with progress_bar() as progress:
        result = embed_stage(config, progress, _tell)
    notes(result.notes)
    changes = result.sync
    out.print(
        f"{changes.n_images} images: {changes.new} new, {changes.changed} changed, {changes.vanished} vanished, "
        f"{changes.returned} returned, {changes.repaired} repaired"
    )
    rate = f" in {result.seconds:.1f} s, {result.n_encoded / result.seconds:.2f} images/s" if result.n_encoded else ""
    if result.key is None:
        out.print("nothing embedded: networks without guidance (--fusion none) can be trained")
    else:
        out.print(f"{result.n_encoded} encoded{rate}; {result.n_embedded} embedded as {result.key.hash}")
        _tell_views(result)
    out.print(f"store: {result.location}")


def _tell_views(result: EmbedResult) -> None:
    """One line a view, where there are others than the image as it is."""
    for view in result.views if len(result.views) > 1 else ():
        out.print(f"  {view.name}: {view.n_encoded} encoded, {view.n_embedded} embedded")


def _tell(told: DiskEstimate | TimeEstimate) -> None:
    """What is foreseen, one line each."""
    from nucseg_pipeline.embed.estimate import DiskEstimate, format_size

    if isinstance(told, DiskEstimate):
        free = "" if told.free_bytes is None else f"; {format_size(told.free_bytes)} are free"
        out.print(f"{told.n_embeddings} embeddings to make, about {format_size(told.n_bytes)} on disk{free}")
    else:
        out.print(f"about {clock(told.seconds)} for the {told.n_left} that are left")
