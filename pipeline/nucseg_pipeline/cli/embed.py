"""`nucseg embed`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nucseg_pipeline.cli.console import clock, notes, out, progress_bar
from nucseg_pipeline.cli.options import options_from
from nucseg_pipeline.config import EmbedConfig

if TYPE_CHECKING:
    from nucseg_pipeline.embed.estimate import DiskEstimate, TimeEstimate
    from nucseg_pipeline.embed.stage import EmbedResult


@options_from(
    EmbedConfig,
    {
        "Data": "dataset source stain convert limit cache",
        "Embeddings": "encoder weights format views view_images",
        "Machine": "device precision batch_size threads workers scheduler",
    },
)
def embed(config: EmbedConfig, recipe: str | None) -> None:
    """Stage one: embed a data set with a frozen SAM encoder and cache the result.

    Reads the data set's images and masks, and the encoder's weights. Writes CACHE/DATASET.zarr, with --stain
    CACHE/DATASET@STAIN.zarr. A second run encodes only what is new or changed; a killed run continues where it stopped.
    Embeddings of another encoder, precision or format, and views, are added to those in the store. The disk space that
    the missing embeddings need is estimated and checked before the first one is computed.
    """
    run_embed(config)


def run_embed(config: EmbedConfig) -> None:
    """Run stage one and print the result."""
    from nucseg_pipeline.embed.stage import embed as embed_stage

    with progress_bar() as progress:
        result = embed_stage(config, progress, _print_estimate)
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
        _print_views(result)
    out.print(f"store: {result.location}")


def _print_views(result: EmbedResult) -> None:
    """Print one line per view, if there are others than the unchanged images."""
    for view in result.views if len(result.views) > 1 else ():
        out.print(f"  {view.name}: {view.n_encoded} encoded, {view.n_embedded} embedded")


def _print_estimate(estimate: DiskEstimate | TimeEstimate) -> None:
    """Print the disk space or the time that the missing embeddings will take."""
    from nucseg_pipeline.embed.estimate import DiskEstimate, format_size

    if isinstance(estimate, DiskEstimate):
        free = "" if estimate.free_bytes is None else f"; {format_size(estimate.free_bytes)} are free"
        out.print(f"{estimate.n_embeddings} embeddings to make, about {format_size(estimate.n_bytes)} on disk{free}")
    else:
        out.print(f"about {clock(estimate.seconds)} for the {estimate.n_left} that are left")
