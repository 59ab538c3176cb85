"""`nucseg predict`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from nucseg_pipeline.cli.console import notes, out, progress_bar
from nucseg_pipeline.cli.options import options_from
from nucseg_pipeline.config import PredictConfig

if TYPE_CHECKING:
    from nucseg_pipeline.predict.stage import ImageResult, PredictResult


@options_from(
    PredictConfig,
    {
        "Data": "scene convert mpp trained_mpp tile_px overlap everything",
        "Model": "run weights",
        "Machine": "device threads batch_size",
        "Output": "out",
    },
    arguments={"images": typer.Argument(metavar="IMAGE")},
    flags={"everything": "--everything"},
)
def predict(config: PredictConfig) -> None:
    """Find nuclei in new images of any size.

    Reads PNG, JPEG, BMP, WebP, TIFF, pyramidal and OME-TIFF, and with OpenSlide the formats of slide scanners, tile by
    tile; the run's folder; and the weights of its encoder. Writes OUT/IMAGE/: instances.tif, nuclei.geojson (opens in
    QuPath), nuclei.csv, overlay.jpg, summary.json and config.toml. A file with several scenes gives OUT/IMAGE_SCENE/
    for each. Images with finished results are skipped; an image that was interrupted continues after its last finished
    row of tiles, which OUT/.IMAGE.part keeps until then.
    """
    from nucseg.errors import DataError
    from nucseg_pipeline.predict.stage import predict as predict_stage

    with progress_bar("tiles") as progress:
        result = predict_stage(config, progress)
    notes([*result.notes, *_notes(result.images)])
    for image in result.images:
        out.print(_line(image))
    if result.images:
        out.print(f"results: {config.out}")
    if result.failures:
        raise DataError(_failed(result))


def _notes(images: Sequence[ImageResult]) -> list[str]:
    """Each note once, with the names of its images unless it concerns all."""
    from nucseg.data.files import some

    names: dict[str, list[str]] = {}
    for image in images:
        for note in image.summary.get("notes", ()):
            names.setdefault(note, []).append(image.name)
    return [note if len(found) == len(images) else f"{some(found, 3)}: {note}" for note, found in names.items()]


def _line(image: ImageResult) -> str:
    summary = image.summary
    if image.was_there:
        return f"{image.name}: already there, {summary['n_nuclei']} nuclei"
    of_image, of_tissue = summary["nuclei_per_mm2"], summary["nuclei_per_mm2_tissue"]
    density = "" if of_image is None else f" ({of_image:.0f} per mm2"
    density += "" if of_image is None else ")" if of_tissue is None else f", {of_tissue:.0f} per mm2 of tissue)"
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
        "The others are done. Fix or leave out these, and run the command again: finished images are skipped."
        if result.images
        else "Fix them, or name others."
    )
    return f"{len(result.failures)} of {n_images} images could not be predicted:{shown}{more}\n{way_out}"
