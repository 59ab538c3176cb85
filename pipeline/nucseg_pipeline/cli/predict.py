"""`nucseg predict`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nucseg_pipeline.cli.console import notes, out, progress_bar

if TYPE_CHECKING:
    from nucseg_pipeline.predict.stage import ImageResult, PredictResult


def predict(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Image files, or folders of images.")],
    run: Annotated[Path, typer.Option(help="Folder of the finished run whose network predicts.")],
    out_folder: Annotated[Path, typer.Option("--out", help="Folder of the results, a folder in it for each image.")],
    weights: Annotated[
        Path | None, typer.Option(help="Weights of the run's encoder. Default: looked for by their digest.")
    ] = None,
    mpp: Annotated[
        float | None, typer.Option(help="Microns a pixel of the images. Default: what each file says.")
    ] = None,
    trained_mpp: Annotated[
        float | None, typer.Option(help="Microns a pixel of the training images. Default: what the run records.")
    ] = None,
    tile_px: Annotated[
        int | None, typer.Option(help="Longest side of the training images. Default: what the run records.")
    ] = None,
    overlap: Annotated[float, typer.Option(help="Share of its side that a tile shares with a neighbour.")] = 0.5,
    everything: Annotated[bool, typer.Option("--everything", help="Predict tiles without tissue, too.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, mps, cuda or cuda:N.")] = "auto",
    threads: Annotated[int | None, typer.Option(help="CPU threads. Default: torch's choice.")] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Most tiles that the network sees at once. Default: by device.")
    ] = None,
) -> None:
    """Find nuclei in new images of any size.

    Reads PNG, JPEG, TIFF, pyramidal and OME-TIFF, and with OpenSlide the slides of scanners, tile by tile; the run's
    folder; and the weights of its encoder. Writes OUT/IMAGE/: instances.tif, nuclei.geojson (opens in QuPath),
    nuclei.csv, overlay.jpg, summary.json and config.toml. Images that are done already are left as they are.
    """
    from nucseg.errors import DataError
    from nucseg_pipeline.config import PredictConfig
    from nucseg_pipeline.predict.stage import predict as predict_stage

    config = PredictConfig(
        images=tuple(images), run=run, out=out_folder, weights=weights, mpp=mpp, trained_mpp=trained_mpp,
        tile_px=tile_px, overlap=overlap, everything=everything, device=device, threads=threads, batch_size=batch_size,
    )  # fmt: skip
    with progress_bar("tiles") as progress:
        result = predict_stage(config, progress)
    notes(list(dict.fromkeys(note for image in result.images for note in image.summary.get("notes", ()))))
    for image in result.images:
        out.print(_told(image))
    if result.images:
        out.print(f"results: {out_folder}")
    if result.failures:
        raise DataError(_failed(result))


def _told(image: ImageResult) -> str:
    summary = image.summary
    if image.was_there:
        return f"{image.name}: already there, {summary['n_nuclei']} nuclei"
    density = "" if summary["nuclei_per_mm2"] is None else f" ({summary['nuclei_per_mm2']:.0f} per mm2)"
    skipped = f", {summary['tiles_without_tissue']} without tissue" if summary["tiles_without_tissue"] else ""
    return (
        f"{image.name}: {summary['n_nuclei']} nuclei{density} in {summary['tiles']} tiles{skipped}, "
        f"{summary['seconds']:.1f} s"
    )


def _failed(result: PredictResult) -> str:
    n_images = len(result.images) + len(result.failures)
    shown = "".join(f"\n  {name}: {reason}" for name, reason in list(result.failures.items())[:8])
    more = f"\n  and {len(result.failures) - 8} more" if len(result.failures) > 8 else ""
    way_out = (
        "The others are done. Mend or leave out these, and run the command again: what is done is kept."
        if result.images
        else "Mend them, or name others."
    )
    return f"{len(result.failures)} of {n_images} images could not be predicted:{shown}{more}\n{way_out}"
