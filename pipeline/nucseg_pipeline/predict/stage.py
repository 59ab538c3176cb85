"""Find nuclei in new images of any size: open the run, its encoder and an image, predict tiles, join nuclei, write."""

from __future__ import annotations

import hashlib
import json
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from nucseg.data.files import some
from nucseg.data.slides import open_slide, square_side
from nucseg.errors import NucsegError
from nucseg.paths import opened_file
from nucseg_cache import CacheError
from nucseg_pipeline.config import PredictConfig
from nucseg_pipeline.config.commands import command
from nucseg_pipeline.config.recipe import to_toml
from nucseg_pipeline.files.publish import check_writable
from nucseg_pipeline.predict.export import NucleusTables
from nucseg_pipeline.predict.image_list import named_images, named_scenes, skipped_in
from nucseg_pipeline.predict.output import (
    CONFIG,
    SUMMARY,
    draft_folder,
    is_of_another_request,
    read_finished,
    write_bands,
)
from nucseg_pipeline.predict.predictor import ImagePrediction, Predictor
from nucseg_pipeline.predict.probability_maps import TISSUE_RULE
from nucseg_pipeline.progress import Progress

LIBRARIES = ("nucseg", "torch", "numpy", "scikit-image", "scipy", "tifffile")

MACHINE = ("device", "threads", "batch_size")
"""Options that depend on the machine and are left out of the recorded command."""


@dataclass(frozen=True, eq=False)
class ImageResult:
    """The result written for an image."""

    name: str
    folder: Path
    summary: Mapping[str, Any]
    """The content of summary.json."""
    was_there: bool
    """Whether it was finished before and left unchanged."""
    replaced: bool = False
    """Whether the folder held the result of another image, run or options."""


@dataclass(frozen=True, eq=False)
class PredictResult:
    """The results of `predict`."""

    images: tuple[ImageResult, ...]
    failures: Mapping[str, str]
    """Name of an image -> why nothing was written for it."""
    notes: tuple[str, ...] = ()
    """On results that were replaced, files of folders that are no images, and subfolders."""


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
                failures[scene_name] = " ".join((str(error), *getattr(error, "__notes__", ())))
    return PredictResult(tuple(done), failures, (*_replaced(done), *skipped_in(config.images)))


def _replaced(images: Sequence[ImageResult]) -> list[str]:
    names = [image.name for image in images if image.replaced]
    return [f"Earlier results of another image, run or options were replaced: {some(names)}."] if names else []


def _predict_image(
    predictor: Predictor, config: PredictConfig, name: str, file: Path, scene: str | int | None, progress: Progress
) -> ImageResult:
    """Predict one image, unless its results exist."""
    began = time.perf_counter()
    folder = config.out / name
    slide = open_slide(file, scene, predictor.convert)
    try:
        prediction = predictor.prediction_for(slide, config.mpp)
        digest = _digest(slide.files)
        asked = _request(prediction, digest)
        before = read_finished(folder, asked)
        if before is not None:
            return ImageResult(name, folder, before, was_there=True)
        replaced = is_of_another_request(folder, asked)
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
    return ImageResult(name, folder, summary, was_there=False, replaced=replaced)


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
    recorded: str,
) -> dict[str, Any]:
    tiled, predictor = prediction.tiled, prediction.predictor
    run, encoder = predictor.run, predictor.tile_model.encoder
    height, width = tiled.slide.size
    mpp, of_file, scale = prediction.mpp, tiled.slide.mpp, prediction.scale.ratio
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
        "levels": [{"width_px": w, "height_px": h} for h, w in tiled.slide.levels],
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
        "mpp_of_file_x": of_file and of_file[1],
        "mpp_of_file_y": of_file and of_file[0],
        "trained_mpp": predictor.training.mpp,
        "scale_x": scale[1],
        "scale_y": scale[0],
        "tiles": tiled.counts.done,
        "tiles_without_tissue": tiled.counts.skipped,
        "tissue_rule": "every tile was predicted" if predictor.everything else TISSUE_RULE,
        "convert": predictor.convert,
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
