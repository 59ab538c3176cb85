"""Find nuclei in images with a trained network, its encoder and no store.

From a notebook:

    from nucseg import Predictor

    predictor = Predictor.open("runs/guided")
    found = predictor.segment(image, mpp=0.25)     # an array (H, W, 3), or a path
    found.instances, found.table["area_um2"]
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import prod, sqrt
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nucseg.data.conversion import check_conversion, conversion_of
from nucseg.data.slides import ArraySlide, Mpp, Slide, open_slide, square_side
from nucseg.errors import ConfigError, DataError
from nucseg.nuclei.stitching import RowBand
from nucseg.paths import as_path
from nucseg.tiling import Maps, TileGrid
from nucseg_pipeline.predict.export import columns
from nucseg_pipeline.predict.kept_rows import KeptRows
from nucseg_pipeline.predict.magnification import Scale, choose_scale, shape_note
from nucseg_pipeline.predict.nuclei import Nucleus, bands, native_maps
from nucseg_pipeline.predict.probability_maps import TiledSlide, map_rows, tissue_notes
from nucseg_pipeline.predict.tile_model import TileModel, TrainingScale
from nucseg_pipeline.runs.run import TrainedRun

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
        convert: str | None = None,
    ) -> Predictor:
        """Open a finished run; the arguments are those of `PredictConfig`.

        Raises:
            ConfigError: the run is not finished or is damaged, or there is no such conversion.
            EncoderError: the weights of its encoder are not found, or are not those of the training.
        """
        if convert is not None:
            check_conversion(convert)
        trained = TrainedRun.opened(run)
        file = None if weights is None else as_path(weights)
        tile_model = TileModel(trained, weights=file, device=device, threads=threads, batch_size=batch_size)
        scale = TrainingScale.of(trained, tile_px=tile_px, mpp=trained_mpp)
        convert = conversion_of(trained.inputs.preparation) if convert is None else convert
        return cls(trained, tile_model, scale, overlap, everything, convert)

    def segment(
        self, image: Image | Path | str, *, mpp: float | None = None, scene: str | int | None = None
    ) -> Segmentation:
        """Find the nuclei of an image that fits into memory.

        Args:
            image: an array (H, W, 3) uint8 RGB, or a file.
            mpp: microns per pixel, if they are square; None uses what the file records.
            scene: name or number (from 1) of the scene, if the file has several.

        Raises:
            DataError: the image cannot be read, or no scene is named although the file has several.
            ConfigError: its resolution is no number, or too far from that of the training images.
        """
        if not isinstance(image, np.ndarray | str | Path):
            raise DataError(
                f"An image must be an array (H, W, 3) of uint8 or the path of a file, got {type(image).__name__}. "
                "Convert it with numpy.asarray."
            )
        if mpp is not None and not isinstance(mpp, int | float | np.number):
            raise ConfigError(f"mpp must be a number, the microns per pixel of square pixels, got {mpp!r}.")
        slide = ArraySlide(image) if isinstance(image, np.ndarray) else open_slide(image, scene, self.convert)
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
        of_grid = None if resolution is None else sqrt(prod(resolution) * prod(slide.size) / prod(grid.size))
        return ImagePrediction(self, TiledSlide(slide, grid, of_grid), scale, resolution)


@dataclass(frozen=True, eq=False)
class ImagePrediction:
    """The prediction of one image, computed as `bands` is iterated."""

    predictor: Predictor
    tiled: TiledSlide
    scale: Scale
    mpp: Mpp | None

    def bands(self, progress: Callable[[int], None], kept: KeptRows | None = None) -> Iterator[RowBand[Nucleus]]:
        """Yield instance map and nuclei in bands from top to bottom.

        Args:
            progress: called with the number of tiles done.
            kept: rows that need not be predicted again, see `map_rows`.
        """
        return bands(self.tiled, self._map_rows(progress, kept), self.predictor.run.rule, mpp=self.mpp)

    def whole(self) -> tuple[Maps, NDArray[np.int32]]:
        """Maps (C, H, W) and instance map (H, W) of an image that fits into memory, in pixels of the image."""
        rows = list(self._map_rows(lambda done: None))
        found = bands(self.tiled, rows, self.predictor.run.rule, mpp=self.mpp)
        instances = np.concatenate([band.instances for band in found])
        return native_maps(self.tiled, np.concatenate(rows, axis=1)), instances

    def _map_rows(self, progress: Callable[[int], None], kept: KeptRows | None = None) -> Iterator[Maps]:
        predictor = self.predictor
        return map_rows(self.tiled, predictor.tile_model, everything=predictor.everything, progress=progress, kept=kept)

    def notes(self) -> tuple[str, ...]:
        """Warnings that limit the result; complete after `bands` was exhausted."""
        encoder, unchanged = self.predictor.tile_model.encoder, self.tiled.counts.stain_unchanged
        stain = f"The stain was not normalised although the network expects it: {unchanged}." if unchanged else ""
        reading = (*self.tiled.slide.notes, shape_note(self.mpp), self.scale.warning)
        tissue = tissue_notes(self.tiled.counts.tissue, everything=self.predictor.everything)
        return tuple(note for note in (*reading, encoder.note if encoder else "", stain, *tissue) if note)
