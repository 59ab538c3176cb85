"""Find nuclei in new images of any size: open the run, its encoder and an image, predict tiles, join nuclei, write.

From a notebook:

    from nucseg_pipeline.predict.stage import Predictor

    predictor = Predictor.open("runs/guided")
    found = predictor.segment(image, mpp=0.25)     # an array (H, W, 3), or a path
    found.instances, found.table["area_um2"]
"""

from __future__ import annotations

import hashlib
import json
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucseg.data.slides import ArraySlide, Slide, open_slide
from nucseg.errors import NucsegError
from nucseg.nuclei.stitching import RowBand
from nucseg.paths import as_path, opened_file
from nucseg.tiling import TileGrid
from nucseg_cache import CacheError
from nucseg_pipeline.config import PredictConfig
from nucseg_pipeline.config.commands import command
from nucseg_pipeline.config.recipe import to_toml
from nucseg_pipeline.files.publish import check_writable
from nucseg_pipeline.predict.export import NucleusTables, columns
from nucseg_pipeline.predict.image_list import named_images
from nucseg_pipeline.predict.kept_rows import KeptRows
from nucseg_pipeline.predict.magnification import Scale, choose_scale
from nucseg_pipeline.predict.nuclei import Nucleus, bands
from nucseg_pipeline.predict.output import CONFIG, SUMMARY, draft_folder, read_finished, write_bands
from nucseg_pipeline.predict.probability_maps import MIN_TISSUE, TiledSlide, map_rows
from nucseg_pipeline.predict.tile_model import TileModel, TrainingScale
from nucseg_pipeline.progress import Progress
from nucseg_pipeline.runs.run import TrainedRun

LIBRARIES = ("nucseg", "torch", "numpy", "scikit-image", "scipy", "tifffile")

MACHINE = ("device", "threads", "batch_size")
"""Options that depend on the machine and are left out of the recorded command."""

Image = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Segmentation:
    """The nuclei of an image that fits into memory."""

    instances: NDArray[np.int32]
    """(H, W), 0 = background; nuclei are numbered by row, then column, of their centres."""
    nuclei: Sequence[Nucleus]
    """Measurements and outlines in pixels; nucleus n is at index n - 1."""
    mpp: float | None
    """Microns per pixel of the image; None if unknown."""
    notes: tuple[str, ...]
    """Warnings that limit the result, such as an unknown magnification."""

    @property
    def table(self) -> dict[str, list[float]]:
        """Name of a measurement -> values of all nuclei, as pandas.DataFrame accepts it."""
        rows = [columns(nucleus, self.mpp) for nucleus in self.nuclei]
        return {name: [row[name] for row in rows] for name in rows[0]} if rows else {}


@dataclass(frozen=True, eq=False)
class ImageResult:
    """The result written for an image."""

    name: str
    folder: Path
    summary: Mapping[str, Any]
    """The content of summary.json."""
    was_there: bool
    """Whether it was finished before and left unchanged."""


@dataclass(frozen=True, eq=False)
class PredictResult:
    """The results of `predict`."""

    images: tuple[ImageResult, ...]
    failures: Mapping[str, str]
    """Name of an image -> why nothing was written for it."""


@dataclass(frozen=True, eq=False)
class Predictor:
    """A trained network with its encoder. It does not need the store that it was trained from."""

    run: TrainedRun
    tile_model: TileModel
    training: TrainingScale
    overlap: float = 0.5
    everything: bool = False

    @classmethod
    def open(
        cls,
        run: Path | str,
        *,
        weights: Path | str | None = None,
        device: str = "auto",
        threads: int | None = None,
        batch_size: int | None = None,
        tile_px: int | None = None,
        trained_mpp: float | None = None,
        overlap: float = 0.5,
        everything: bool = False,
    ) -> Predictor:
        """Open a finished run; the arguments are those of `PredictConfig`.

        Raises:
            ConfigError: the run is not finished or is damaged.
            EncoderError: the weights of its encoder are not found, or are not those of the training.
        """
        trained = TrainedRun.opened(run)
        file = None if weights is None else as_path(weights)
        tile_model = TileModel(trained, weights=file, device=device, threads=threads, batch_size=batch_size)
        return cls(
            trained, tile_model, TrainingScale.of(trained, tile_px=tile_px, mpp=trained_mpp), overlap, everything
        )

    def segment(self, image: Image | Path | str, *, mpp: float | None = None) -> Segmentation:
        """Find the nuclei of an image that fits into memory.

        Args:
            image: an array (H, W, 3) uint8 RGB, or a file.
            mpp: microns per pixel; None uses what the file records.

        Raises:
            DataError: the image cannot be read.
            ConfigError: its resolution is too far from that of the training images.
        """
        slide = ArraySlide(image) if isinstance(image, np.ndarray) else open_slide(image)
        try:
            prediction = self.prediction_for(slide, mpp)
            found = list(prediction.bands(lambda done: None))
        finally:
            slide.close()
        nuclei = [nucleus for band in found for _, nucleus in band.nuclei]
        instances = np.concatenate([band.instances for band in found])
        return Segmentation(instances, nuclei, prediction.mpp, prediction.notes())

    def prediction_for(
        self, slide: Slide, mpp: float | None = None, shift: tuple[int, int] = (0, 0)
    ) -> ImagePrediction:
        """Prepare the prediction of an image; `shift` moves the tiles, which must hardly change the result."""
        resolution = slide.mpp if mpp is None else mpp
        scale = choose_scale(resolution, self.training.mpp)
        size = tuple(max(round(extent * scale.ratio), 1) for extent in slide.size)
        grid = TileGrid(
            size=(size[0], size[1]), tile_px=self.training.tile_px, side_px=self.tile_model.side_px,
            overlap=self.overlap, shift=shift,
        )  # fmt: skip
        return ImagePrediction(self, TiledSlide(slide, grid), scale, resolution)


@dataclass(frozen=True, eq=False)
class ImagePrediction:
    """The prediction of one image, computed as `bands` is iterated."""

    predictor: Predictor
    tiled: TiledSlide
    scale: Scale
    mpp: float | None

    def bands(self, progress: Callable[[int], None], kept: KeptRows | None = None) -> Iterator[RowBand[Nucleus]]:
        """Yield instance map and nuclei in bands from top to bottom.

        Args:
            progress: called with the number of tiles done.
            kept: rows that need not be predicted again, see `map_rows`.
        """
        predictor = self.predictor
        rows = map_rows(self.tiled, predictor.tile_model, everything=predictor.everything, progress=progress, kept=kept)
        return bands(self.tiled, rows, self.predictor.run.rule)

    def notes(self) -> tuple[str, ...]:
        """Warnings that limit the result; complete after `bands` was exhausted."""
        encoder, unchanged = self.predictor.tile_model.encoder, self.tiled.counts.stain_unchanged
        stain = f"The stain was not normalised although the network expects it: {unchanged}." if unchanged else ""
        return tuple(note for note in (self.scale.warning, encoder.note if encoder else "", stain) if note)


def predict(config: PredictConfig, progress: Progress = lambda done, total, what: None) -> PredictResult:
    """Find the nuclei of images and write a folder for each. If an image fails, the others are still processed.

    `config.out / NAME` gets instances.tif, nuclei.geojson, nuclei.csv, overlay.jpg, summary.json and config.toml, all
    of them or none. Existing results of the same image, run and options are kept.

    Raises:
        ConfigError: no image, no finished run, or a folder that cannot be written.
        EncoderError: the weights of the run's encoder are not found, or are not those of the training.
    """
    images = named_images(config.images)
    check_writable(config.out)
    predictor = Predictor.open(
        config.run, weights=config.weights, device=config.device, threads=config.threads, batch_size=config.batch_size,
        tile_px=config.tile_px, trained_mpp=config.trained_mpp, overlap=config.overlap, everything=config.everything,
    )  # fmt: skip
    done, failures = [], {}
    for name, file in images.items():
        try:
            done.append(_predict_image(predictor, config, name, file, progress))
        except (NucsegError, CacheError) as error:
            failures[name] = " ".join((str(error), *getattr(error, "__notes__", ())))
    return PredictResult(tuple(done), failures)


def _predict_image(
    predictor: Predictor, config: PredictConfig, name: str, file: Path, progress: Progress
) -> ImageResult:
    """Predict one image, unless its results exist."""
    began = time.perf_counter()
    folder = config.out / name
    slide = open_slide(file)
    try:
        prediction = predictor.prediction_for(slide, config.mpp)
        digest = _digest(slide.files)
        asked = _request(prediction, digest)
        before = read_finished(folder, asked)
        if before is not None:
            return ImageResult(name, folder, before, was_there=True)
        n_tiles = prediction.tiled.grid.n_tiles
        progress(0, n_tiles, name)
        with draft_folder(folder, {**asked, "versions": _versions()}) as (draft, kept):
            found = prediction.bands(lambda n_done: progress(n_done, n_tiles, name), kept)
            totals = write_bands(draft, slide, found, image_digest=digest, mpp=prediction.mpp)
            recorded = command(config, without=MACHINE)
            summary = _summary(prediction, file, totals, asked, time.perf_counter() - began, recorded)
            (draft / CONFIG).write_text(to_toml(config), encoding="utf-8")
            (draft / SUMMARY).write_text(json.dumps(summary, indent=1), encoding="utf-8")
    finally:
        slide.close()
    return ImageResult(name, folder, summary, was_there=False)


def _request(prediction: ImagePrediction, image_digest: str) -> dict[str, Any]:
    """Everything that determines the result: the image, the run and the options."""
    predictor, grid = prediction.predictor, prediction.tiled.grid
    run = predictor.run
    return {
        "image": image_digest,
        "run": {
            "inputs": run.inputs.fingerprint,
            "files": run.folder.file_digests(),
            "encoder": dict(run.inputs.embedding),
        },
        "reading_size": list(grid.size),
        "tile_px": grid.tile_px,
        "overlap": grid.overlap,
        "everything": predictor.everything,
        "mpp": prediction.mpp,
    }


def _summary(
    prediction: ImagePrediction,
    file: Path,
    totals: NucleusTables,
    asked: Mapping[str, Any],
    seconds: float,
    recorded: str,
) -> dict[str, Any]:
    tiled, predictor = prediction.tiled, prediction.predictor
    run, encoder = predictor.run, predictor.tile_model.encoder
    height, width = tiled.slide.size
    area_mm2 = None if prediction.mpp is None else height * width * (prediction.mpp / 1000) ** 2
    return {
        "image": str(file),
        "width_px": width,
        "height_px": height,
        "reader": tiled.slide.reader,
        "levels": [list(level) for level in tiled.slide.levels],
        "n_nuclei": totals.n_nuclei,
        "mean_area_px2": totals.area_px2 / totals.n_nuclei if totals.n_nuclei else None,
        "area_share": totals.area_px2 / (height * width),
        "area_mm2": area_mm2,
        "nuclei_per_mm2": None if area_mm2 is None else totals.n_nuclei / area_mm2,
        "mpp": prediction.mpp,
        "mpp_of_file": tiled.slide.mpp,
        "trained_mpp": predictor.training.mpp,
        "scale": prediction.scale.ratio,
        "tiles": tiled.counts.done,
        "tiles_without_tissue": tiled.counts.skipped,
        "tissue_rule": f"a tile is skipped if less than {MIN_TISSUE:.1%} of it is denser than glass"
        if not predictor.everything
        else "every tile was predicted",
        "run": run.name,
        "rule": vars(run.rule),
        "encoder": dict(encoder.identity) if encoder else {},
        "encoder_made_by": dict(encoder.provenance) if encoder else {},
        "notes": list(prediction.notes()),
        "command": recorded,
        "seconds": round(seconds, 1),
        "versions": {"python": platform.python_version(), **_versions()},
        "asked": dict(asked),
    }


def _versions() -> dict[str, str]:
    return {name: metadata.version(name) for name in LIBRARIES}


def _digest(files: Sequence[Path]) -> str:
    """SHA-256 of a file, or of the SHA-256 of all files that an image consists of."""
    digests = []
    for file in files:
        with opened_file(file) as stream:
            digests.append(hashlib.file_digest(stream, "sha256").hexdigest())
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
