"""Predict tiles with the network of a run and its encoder, without a store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from nucseg.adaptive_batch import AdaptiveBatcher
from nucseg.data.prepare import resized
from nucseg.data.stain import stain_identity
from nucseg.encoders import Encoder, open_recorded
from nucseg.encoders.preprocess import PIXEL_MEAN
from nucseg.errors import ConfigError
from nucseg.tiling import Maps, Tile
from nucseg_cache.formats import checked, format_named
from nucseg_pipeline.modelling.device import choose_device
from nucseg_pipeline.runs.run import TrainedRun, encoder_files

CPU_BATCH, GPU_BATCH = 2, 8
"""Default batch sizes; the encoder's check for constant embeddings needs at least two images."""

Image = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class TrainingScale:
    """Size and resolution of the images that a run was trained on."""

    tile_px: int
    """Longest side in pixels."""
    mpp: float | None
    """Microns per pixel; None if unknown."""

    @classmethod
    def of(cls, run: TrainedRun, *, tile_px: int | None = None, mpp: float | None = None) -> TrainingScale:
        """The given values, or else those that the run records."""
        return cls(tile_px or run.inputs.native_px, mpp or run.inputs.mpp or None)


class TileModel:
    """Predicts tiles as `Run.predict` predicts rows of a store: same preparation, same rounding, same network."""

    def __init__(
        self, run: TrainedRun, *, weights: Path | None, device: str, threads: int | None, batch_size: int | None
    ) -> None:
        """Load the network and the encoder.

        Raises:
            ConfigError: the checkpoint cannot be read, or weights are given for a network trained without guidance.
            EncoderError: the encoder's weights are not found, or are not those of the training.
        """
        if threads is not None:
            torch.set_num_threads(threads)
        self._device = choose_device(device)
        identity = run.inputs.embedding
        self.encoder: Encoder | None = None
        if identity:
            self.encoder = open_recorded(
                identity, weights=weights, hints=encoder_files(run.config),
                device=_encoder_device(identity["architecture"], device), threads=threads,
            )  # fmt: skip
            self._format = format_named(identity["format"])
        elif weights is not None:
            raise ConfigError(f"{run.name} was trained without guidance and has no encoder. Leave out --weights.")
        self.side_px = int(run.inputs.preparation["side_px"])
        self.stain = _known_stain(run)
        self.n_maps = 1 if run.config.instance_head == "none" else 2
        self.batch_size = batch_size or (CPU_BATCH if self._device.type == "cpu" else GPU_BATCH)
        self._batcher = AdaptiveBatcher(self.batch_size)
        self._model = run.network().to(self._device)

    def maps(self, tiles: Sequence[Tile], regions: Sequence[Image], tile_px: int) -> list[Maps]:
        """Predict the maps of tiles, (C, to_h, to_w) each, without padding.

        Args:
            tiles: their positions.
            regions: their pixels (h, w, 3) on the reading grid.
            tile_px: side of a tile on the reading grid.
        """
        images = np.zeros((len(tiles), self.side_px, self.side_px, 3), np.uint8)
        for square, tile, region in zip(images, tiles, regions, strict=True):
            square[: tile.to_h, : tile.to_w] = resized(region, tile.to_h, tile.to_w)
        embeddings = self._embed([_padded(region, tile_px) for region in regions])
        parts = self._batcher.batches(range(len(tiles)), lambda part: self._forward(images, embeddings, part))
        predicted = [maps for _, part in parts for maps in part]
        return [maps[:, : tile.to_h, : tile.to_w] for tile, maps in zip(tiles, predicted, strict=True)]

    def _embed(self, images: Sequence[Image]) -> npt.NDArray[np.float32] | None:
        """(B, 256, 64, 64), rounded as in the store that the network was trained from."""
        if self.encoder is None:
            return None
        stored = self._format.encode(checked(self.encoder.encode(images)))
        return np.asarray(self._format.decode(stored), np.float32)

    @torch.no_grad()
    def _forward(self, images: Image, embeddings: npt.NDArray[np.float32] | None, part: Sequence[int]) -> Maps:
        """Maps (B, C, side, side) of consecutive tiles."""
        batch = slice(part[0], part[-1] + 1)
        image = torch.from_numpy(images[batch]).to(self._device).permute(0, 3, 1, 2).contiguous().float() / 255
        embedding = None if embeddings is None else torch.from_numpy(embeddings[batch]).to(self._device)
        outputs = self._model.outputs(image, embedding)
        maps: list[Tensor] = [outputs.sides[0].float().softmax(1)[:, 1]]
        if outputs.distance is not None:
            maps.append(outputs.distance.float())
        return np.asarray(torch.stack(maps, dim=1).cpu().numpy())


def _known_stain(run: TrainedRun) -> str:
    preparation = dict(run.inputs.preparation)
    stain = preparation.get("stain", "none")
    differing = {name for name, value in stain_identity(stain).items() if preparation.get(name, "none") != value}
    if differing:
        raise ConfigError(
            f"{run.name} was trained on images normalised by {stain} with other settings than this version's "
            f"({', '.join(sorted(differing))}). Use the version that embedded them, or embed and train again."
        )
    return stain


def _encoder_device(architecture: str, device: str) -> str:
    """The device for the encoder. ONNX runs on CPU or CUDA only; on other devices it chooses automatically."""
    return device if architecture != "onnx" or device in ("auto", "cpu", "cuda") else "auto"


def _padded(region: Image, tile_px: int) -> Image:
    """Pad a region to the width of a tile, because the encoder rescales images by their longest side.

    Only images smaller than a tile have such regions. The padding is the encoder's mean colour, as in its own padding.
    """
    if max(region.shape[:2]) >= tile_px:
        return region
    padded = np.empty((region.shape[0], tile_px, 3), np.uint8)
    padded[:] = np.rint(PIXEL_MEAN).astype(np.uint8)
    padded[:, : region.shape[1]] = region
    return padded
