"""Nuclei in new images of any size: open the run, its encoder and an image, predict tiles, join nuclei, write.

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

from nucseg.data.slides import ArraySlide, Slide, open_slide
from nucseg.errors import NucsegError
from nucseg.nuclei.stitching import RowBand
from nucseg.paths import opened_file
from nucseg.tiling import TileGrid
from nucseg_cache import CacheError
from nucseg_pipeline.config import PredictConfig
from nucseg_pipeline.config.recipe import to_toml
from nucseg_pipeline.files.atomic import write_whole
from nucseg_pipeline.files.publish import check_writable
from nucseg_pipeline.predict.export import columns
from nucseg_pipeline.predict.image_list import named_images
from nucseg_pipeline.predict.magnification import Scale, choose_scale
from nucseg_pipeline.predict.nuclei import Nucleus, bands
from nucseg_pipeline.predict.output import CONFIG, SUMMARY, Written, drafted, finished, write_bands
from nucseg_pipeline.predict.probability_maps import LEAST_TISSUE, Scene, map_rows
from nucseg_pipeline.predict.tile_model import Engine, Native, native_images
from nucseg_pipeline.progress import Progress
from nucseg_pipeline.runs.run import TrainedRun

LIBRARIES = ("nucseg", "torch", "numpy", "scikit-image", "scipy", "tifffile")

Image = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Segmentation:
    """The nuclei of an image that fits into memory."""

    instances: NDArray[np.int32]
    """(H, W), 0 = background, nuclei numbered by the row, then the column, of their centres."""
    nuclei: Sequence[Nucleus]
    """Nucleus n at n - 1: measurements, and outline in pixels of the image."""
    mpp: float | None
    """Microns a pixel of the image, where known."""
    notes: tuple[str, ...]
    """What keeps the result from meaning what it seems to mean."""

    @property
    def table(self) -> dict[str, list[float]]:
        """Name of a measurement -> its values, one a nucleus; what pandas.DataFrame takes."""
        rows = [columns(nucleus, self.mpp) for nucleus in self.nuclei]
        return {name: [row[name] for row in rows] for name in rows[0]} if rows else {}


@dataclass(frozen=True, eq=False)
class ImageResult:
    """What was written of one image."""

    name: str
    folder: Path
    summary: Mapping[str, Any]
    """The content of summary.json."""
    was_there: bool
    """Whether it was finished before, and left as it is."""


@dataclass(frozen=True, eq=False)
class PredictResult:
    """What a prediction of several images came to."""

    images: tuple[ImageResult, ...]
    failures: Mapping[str, str]
    """Name of an image -> why nothing was written of it."""


@dataclass(frozen=True, eq=False)
class Predictor:
    """A trained network with its encoder, ready for images; the store that it was trained from is not needed."""

    run: TrainedRun
    engine: Engine
    native: Native
    overlap: float = 0.5
    everything: bool = False

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
    ) -> Predictor:
        """Open a finished run.

        The arguments are those of `PredictConfig`.

        Raises:
            ConfigError: no finished run, a damaged one, or one that does not record how large its images were.
            EncoderError: the weights of its encoder are not found, or are others.
        """
        trained = TrainedRun.opened(run)
        native = native_images(trained, tile_px, trained_mpp)
        engine = Engine.of(trained, weights=weights, device=device, threads=threads, batch_size=batch_size)
        return cls(trained, engine, native, overlap, everything)

    def segment(self, image: Image | Path | str, *, mpp: float | None = None) -> Segmentation:
        """Find the nuclei of an image: an array (H, W, 3) uint8 RGB, or a file.

        Args:
            image: what to look at.
            mpp: microns a pixel; None takes what the file says.

        Raises:
            DataError: no image, or one that cannot be read.
            ConfigError: its resolution is too far from that of the training images.
        """
        slide = ArraySlide(image) if isinstance(image, np.ndarray) else open_slide(Path(image))
        try:
            seen = self.looking(slide, mpp)
            found = list(seen.bands(lambda done: None))
        finally:
            slide.close()
        nuclei = [nucleus for band in found for _, nucleus in band.nuclei]
        return Segmentation(np.concatenate([band.instances for band in found]), nuclei, seen.mpp, seen.notes())

    def looking(self, slide: Slide, mpp: float | None = None, shift: tuple[int, int] = (0, 0)) -> Look:
        """How an image is looked at; `shift` moves the tiles, which must change next to nothing."""
        resolution = slide.mpp if mpp is None else mpp
        scale = choose_scale(resolution, self.native.mpp)
        size = tuple(max(round(extent * scale.ratio), 1) for extent in slide.size)
        grid = TileGrid(
            size=(size[0], size[1]), tile_px=self.native.tile_px, side_px=self.engine.side_px, overlap=self.overlap,
            shift=shift,
        )  # fmt: skip
        return Look(self, Scene(slide, grid), scale, resolution)


@dataclass(frozen=True, eq=False)
class Look:
    """One image under one network."""

    by: Predictor
    scene: Scene
    scale: Scale
    mpp: float | None

    def bands(self, progress: Callable[[int], None]) -> Iterator[RowBand[Nucleus]]:
        """The instance map and the nuclei from above to below; `progress` is called with the tiles done."""
        rows = map_rows(self.scene, self.by.engine, everything=self.by.everything, progress=progress)
        return bands(self.scene, rows, self.by.run.rule)

    def notes(self) -> tuple[str, ...]:
        """What a reader of the result has to know; complete once the bands are through."""
        encoder, unchanged = self.by.engine.encoder, self.scene.counts.stain_unchanged
        stain = f"The stain was not normalised, though the network expects it: {unchanged}." if unchanged else ""
        return tuple(note for note in (self.scale.caution, encoder.note if encoder else "", stain) if note)


def predict(config: PredictConfig, progress: Progress = lambda done, total, what: None) -> PredictResult:
    """Find the nuclei of images and write a folder for each; an image that fails does not keep others from being done.

    In `config.out / NAME` lie instances.tif, nuclei.geojson, nuclei.csv, overlay.jpg, summary.json and config.toml,
    all of them or none. Results of the same image, run and options that are there already are kept.

    Raises:
        ConfigError: no image, no finished run, or a folder that cannot be written.
        EncoderError: the weights of the run's encoder are not found, or are others.
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
            done.append(_predicted(predictor, config, name, file, progress))
        except (NucsegError, CacheError) as error:
            failures[name] = str(error)
    return PredictResult(tuple(done), failures)


def _predicted(predictor: Predictor, config: PredictConfig, name: str, file: Path, progress: Progress) -> ImageResult:
    """Predict one image, unless that is done."""
    began = time.perf_counter()
    folder = config.out / name
    slide = open_slide(file)
    try:
        look = predictor.looking(slide, config.mpp)
        digest = _file_digest(file)
        asked = _asked(look, digest)
        before = finished(folder, asked)
        if before is not None:
            return ImageResult(name, folder, before, was_there=True)
        n_tiles = look.scene.grid.n_tiles
        progress(0, n_tiles, name)
        with drafted(folder) as draft:
            made = look.bands(lambda n_done: progress(n_done, n_tiles, name))
            written = write_bands(draft, slide, made, image_digest=digest, mpp=look.mpp)
            summary = _summary(look, file, written, asked, time.perf_counter() - began, _command(config))
            write_whole(draft / CONFIG, to_toml(config).encode())
            write_whole(draft / SUMMARY, _json(summary))
    finally:
        slide.close()
    return ImageResult(name, folder, summary, was_there=False)


def _asked(look: Look, image_digest: str) -> dict[str, Any]:
    """What decides the result: the image, the run, and how they are brought together."""
    predictor, grid = look.by, look.scene.grid
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
        "mpp": look.mpp,
    }


def _summary(
    look: Look, file: Path, written: Written, asked: Mapping[str, Any], seconds: float, command: str
) -> dict[str, Any]:
    scene, run = look.scene, look.by.run
    height, width = scene.slide.size
    area_mm2 = None if look.mpp is None else height * width * (look.mpp / 1000) ** 2
    encoder = look.by.engine.encoder
    return {
        "image": str(file),
        "width_px": width,
        "height_px": height,
        "reader": scene.slide.reader,
        "levels": [list(level) for level in scene.slide.levels],
        "n_nuclei": written.n_nuclei,
        "mean_area_px2": written.area_px2 / written.n_nuclei if written.n_nuclei else None,
        "area_share": written.area_px2 / (height * width),
        "area_mm2": area_mm2,
        "nuclei_per_mm2": None if area_mm2 is None else written.n_nuclei / area_mm2,
        "mpp": look.mpp,
        "mpp_of_file": scene.slide.mpp,
        "trained_mpp": look.by.native.mpp,
        "scale": look.scale.ratio,
        "tiles": scene.counts.done,
        "tiles_without_tissue": scene.counts.skipped,
        "tissue_rule": f"a tile is passed over where less than {LEAST_TISSUE:.1%} of it is denser than glass"
        if not look.by.everything
        else "every tile was predicted",
        "run": run.name,
        "rule": vars(run.rule),
        "encoder": dict(encoder.identity) if encoder else {},
        "encoder_made_by": dict(encoder.provenance) if encoder else {},
        "notes": list(look.notes()),
        "command": command,
        "seconds": round(seconds, 1),
        "versions": {"python": platform.python_version(), **{name: metadata.version(name) for name in LIBRARIES}},
        "asked": dict(asked),
    }


def _command(config: PredictConfig) -> str:
    words = ["nucseg", "predict", *map(str, config.images), "--run", str(config.run), "--out", str(config.out)]
    options = {"--weights": config.weights, "--mpp": config.mpp, "--trained-mpp": config.trained_mpp}
    options |= {"--tile-px": config.tile_px, "--overlap": config.overlap}
    words += [str(word) for option, value in options.items() if value is not None for word in (option, value)]
    return shlex.join([*words, *(["--everything"] if config.everything else [])])


def _file_digest(file: Path) -> str:
    with opened_file(file) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _json(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, indent=1).encode()
