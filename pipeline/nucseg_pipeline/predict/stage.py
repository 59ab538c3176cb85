"""Find nuclei in new images of any size: open the run, its encoder and an image, predict tiles, join nuclei, write.

From a notebook:

    from nucseg_pipeline.predict.stage import Predictor

    predictor = Predictor.open(Path("runs/guided"))
    found = predictor.segment(image, mpp=0.25)     # an array (H, W, 3), or a path
    found.instances, found.table["area_um2"]
"""

from __future__ import annotations

import hashlib
import json
import platform
import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucseg.data.slides import ArraySlide, Mpp, Slide, open_slide, square_side
from nucseg.errors import NucsegError
from nucseg.nuclei.stitching import RowBand
from nucseg.paths import opened_file
from nucseg.tiling import TileGrid
from nucseg_cache import CacheError
from nucseg_pipeline.config import PredictConfig
from nucseg_pipeline.config.recipe import to_toml
from nucseg_pipeline.files.publish import check_writable
from nucseg_pipeline.predict.export import NucleusTables, columns
from nucseg_pipeline.predict.image_list import named_images, named_scenes, skipped_in
from nucseg_pipeline.predict.magnification import Scale, choose_scale, shape_note
from nucseg_pipeline.predict.nuclei import Nucleus, bands
from nucseg_pipeline.predict.output import CONFIG, SUMMARY, draft_folder, read_finished, write_bands
from nucseg_pipeline.predict.probability_maps import TISSUE_RULE, TiledSlide, map_rows, tissue_notes
from nucseg_pipeline.predict.tile_model import TileModel, TrainingScale
from nucseg_pipeline.progress import Progress
from nucseg_pipeline.runs.run import TrainedRun

LIBRARIES = ("nucseg", "torch", "numpy", "scikit-image", "scipy", "tifffile")

Image = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Segmentation:
    """The nuclei of an image that fits into memory."""

    instances: NDArray[np.int32]
    """(H, W), 0 = background; nuclei are numbered by row, then column, of their centres."""
    nuclei: Sequence[Nucleus]
    """Measurements and outlines in pixels; nucleus n is at index n - 1."""
    mpp_yx: Mpp | None
    """Microns per pixel of the image, down and across; None if unknown."""
    notes: tuple[str, ...]
    """Warnings that limit the result, such as an unknown magnification."""

    @property
    def mpp(self) -> float | None:
        """Microns per pixel of the image; None if unknown, or if its pixels are not square."""
        return square_side(self.mpp_yx)

    @property
    def table(self) -> dict[str, list[float]]:
        """Name of a measurement -> values of all nuclei, as pandas.DataFrame accepts it."""
        rows = [columns(nucleus, self.mpp_yx) for nucleus in self.nuclei]
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
    notes: tuple[str, ...] = ()
    """On the files of folders that are no images."""


@dataclass(frozen=True, eq=False)
class Predictor:
    """A trained network with its encoder. It does not need the store that it was trained from."""

    run: TrainedRun
    tile_model: TileModel
    training: TrainingScale
    overlap: float = 0.5
    everything: bool = False
    convert: str = "none"

    @classmethod
    def open(
        cls,
        run: Path,
        *,
        weights: Path | None = None,
        device: str = "auto",
        threads: int | None = None,
        batch_size: int | None = None,
        tile_px: int | None = None,
        trained_mpp: float | None = None,
        overlap: float = 0.5,
        everything: bool = False,
        convert: str | None = None,
    ) -> Predictor:
        """Open a finished run; the arguments are those of `PredictConfig`.

        Raises:
            ConfigError: the run is not finished or is damaged.
            EncoderError: the weights of its encoder are not found, or are not those of the training.
        """
        trained = TrainedRun.opened(run)
        tile_model = TileModel(trained, weights=weights, device=device, threads=threads, batch_size=batch_size)
        scale = TrainingScale.of(trained, tile_px=tile_px, mpp=trained_mpp)
        as_trained = trained.inputs.preparation.get("convert", "none")
        return cls(trained, tile_model, scale, overlap, everything, as_trained if convert is None else convert)

    def segment(self, image: Image | Path | str, *, mpp: float | None = None, scene: str | None = None) -> Segmentation:
        """Find the nuclei of an image that fits into memory.

        Args:
            image: an array (H, W, 3) uint8 RGB, or a file.
            mpp: microns per pixel, if they are square; None uses what the file records.
            scene: name or number (from 1) of the scene, if the file has several.

        Raises:
            DataError: the image cannot be read, or no scene is named although the file has several.
            ConfigError: its resolution is too far from that of the training images.
        """
        slide = ArraySlide(image) if isinstance(image, np.ndarray) else open_slide(Path(image), scene, self.convert)
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
        resolution = slide.mpp if mpp is None else (mpp, mpp)
        scale = choose_scale(resolution, self.training.mpp)
        size = tuple(max(round(extent * ratio), 1) for extent, ratio in zip(slide.size, scale.ratio, strict=True))
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
    mpp: Mpp | None

    def bands(self, progress: Callable[[int], None]) -> Iterator[RowBand[Nucleus]]:
        """Yield instance map and nuclei in bands from top to bottom; calls `progress` with the number of tiles done."""
        rows = map_rows(self.tiled, self.predictor.tile_model, everything=self.predictor.everything, progress=progress)
        return bands(self.tiled, rows, self.predictor.run.rule, mpp=self.mpp)

    def notes(self) -> tuple[str, ...]:
        """Warnings that limit the result; complete after `bands` was exhausted."""
        encoder, unchanged = self.predictor.tile_model.encoder, self.tiled.counts.stain_unchanged
        stain = f"The stain was not normalised although the network expects it: {unchanged}." if unchanged else ""
        reading = (*self.tiled.slide.notes, shape_note(self.mpp), self.scale.warning)
        tissue = tissue_notes(self.tiled.counts.tissue, everything=self.predictor.everything)
        return tuple(note for note in (*reading, encoder.note if encoder else "", stain, *tissue) if note)


def predict(config: PredictConfig, progress: Progress = lambda done, total, what: None) -> PredictResult:
    """Find the nuclei of images and write a folder for each. If an image fails, the others are still processed.

    `config.out / NAME` gets instances.tif, nuclei.geojson, nuclei.csv, overlay.jpg, summary.json and config.toml, all
    of them or none. Existing results of the same image, run and options are kept.

    Raises:
        ConfigError: no image, no finished run, or a folder that cannot be written.
        EncoderError: the weights of the run's encoder are not found, or are not those of the training.
    """
    images = named_images(config.images)
    names = set(images)
    check_writable(config.out)
    predictor = Predictor.open(
        config.run, weights=config.weights, device=config.device, threads=config.threads, batch_size=config.batch_size,
        tile_px=config.tile_px, trained_mpp=config.trained_mpp, overlap=config.overlap, everything=config.everything,
        convert=config.convert,
    )  # fmt: skip
    done, failures = [], {}
    for name, file in images.items():
        try:
            scenes = named_scenes(name, file, config.scene, names)
        except NucsegError as error:
            failures[name] = str(error)
            continue
        for scene_name, scene in scenes.items():
            try:
                done.append(_predict_image(predictor, config, scene_name, file, scene, progress))
            except (NucsegError, CacheError) as error:
                failures[scene_name] = str(error)
    return PredictResult(tuple(done), failures, skipped_in(config.images))


def _predict_image(
    predictor: Predictor, config: PredictConfig, name: str, file: Path, scene: str | None, progress: Progress
) -> ImageResult:
    """Predict one image, unless its results exist."""
    began = time.perf_counter()
    folder = config.out / name
    slide = open_slide(file, scene, predictor.convert)
    try:
        prediction = predictor.prediction_for(slide, config.mpp)
        digest = _file_digest(file)
        asked = _request(prediction, digest)
        before = read_finished(folder, asked)
        if before is not None:
            return ImageResult(name, folder, before, was_there=True)
        n_tiles = prediction.tiled.grid.n_tiles
        progress(0, n_tiles, name)
        with draft_folder(folder) as draft:
            found = prediction.bands(lambda n_done: progress(n_done, n_tiles, name))
            totals = write_bands(draft, slide, found, image_digest=digest, mpp=prediction.mpp)
            summary = _summary(prediction, file, totals, asked, time.perf_counter() - began, _command(config))
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
        "scene": prediction.tiled.slide.scene,
        "run": {
            "inputs": run.inputs.fingerprint,
            "files": run.folder.file_digests(),
            "encoder": dict(run.inputs.embedding),
        },
        "reading_size": list(grid.size),
        "tile_px": grid.tile_px,
        "overlap": grid.overlap,
        "everything": predictor.everything,
        "convert": predictor.convert,
        "mpp": prediction.mpp,
    }


def _summary(
    prediction: ImagePrediction,
    file: Path,
    totals: NucleusTables,
    asked: Mapping[str, Any],
    seconds: float,
    command: str,
) -> dict[str, Any]:
    tiled, predictor = prediction.tiled, prediction.predictor
    run, encoder = predictor.run, predictor.tile_model.encoder
    height, width = tiled.slide.size
    mpp, scale = prediction.mpp, prediction.scale.ratio
    area_mm2 = None if mpp is None else height * width * mpp[0] * mpp[1] / 1e6
    tissue = tiled.counts.tissue
    tissue_area_mm2 = None if area_mm2 is None else area_mm2 * tissue.share
    return {
        "image": str(file),
        "scene": tiled.slide.scene,
        "width_px": width,
        "height_px": height,
        "origin_px": list(tiled.slide.origin[::-1]),
        "reader": tiled.slide.reader,
        "levels": [list(level) for level in tiled.slide.levels],
        "n_nuclei": totals.n_nuclei,
        "mean_area_px2": totals.area_px2 / totals.n_nuclei if totals.n_nuclei else None,
        "area_share": totals.area_px2 / (height * width),
        "area_mm2": area_mm2,
        "nuclei_per_mm2": None if area_mm2 is None else totals.n_nuclei / area_mm2,
        "tissue_share": tissue.share,
        "artefact_share": tissue.artefact_share,
        "tissue_area_mm2": tissue_area_mm2,
        "nuclei_per_mm2_tissue": totals.n_nuclei / tissue_area_mm2 if tissue_area_mm2 else None,
        "mpp": square_side(mpp),
        "mpp_x": mpp and mpp[1],
        "mpp_y": mpp and mpp[0],
        "mpp_of_file": _number_or_sides(tiled.slide.mpp),
        "trained_mpp": predictor.training.mpp,
        "scale": _number_or_sides(scale),
        "tiles": tiled.counts.done,
        "tiles_without_tissue": tiled.counts.skipped,
        "tissue_rule": "every tile was predicted" if predictor.everything else TISSUE_RULE,
        "convert": predictor.convert,
        "run": run.name,
        "rule": vars(run.rule),
        "encoder": dict(encoder.identity) if encoder else {},
        "encoder_made_by": dict(encoder.provenance) if encoder else {},
        "notes": list(prediction.notes()),
        "command": command,
        "seconds": round(seconds, 1),
        "versions": {"python": platform.python_version(), **{name: metadata.version(name) for name in LIBRARIES}},
        "asked": dict(asked),
    }


def _number_or_sides(values: tuple[float, float] | None) -> float | list[float] | None:
    """A number for square pixels, otherwise [across, down]."""
    return square_side(values) or (list(values[::-1]) if values else None)


def _command(config: PredictConfig) -> str:
    words = ["nucseg", "predict", *map(str, config.images), "--run", str(config.run), "--out", str(config.out)]
    options: dict[str, Path | float | str | None]
    options = {"--weights": config.weights, "--mpp": config.mpp, "--trained-mpp": config.trained_mpp}
    options |= {"--tile-px": config.tile_px, "--overlap": config.overlap}
    options |= {"--scene": config.scene, "--convert": config.convert}
    words += [str(word) for option, value in options.items() if value is not None for word in (option, value)]
    return shlex.join([*words, *(["--everything"] if config.everything else [])])


def _file_digest(file: Path) -> str:
    with opened_file(file) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
