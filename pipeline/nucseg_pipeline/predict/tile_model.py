"""The network of a run with its encoder: tiles in, maps out, without any store."""

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
from nucseg.models import SegmentationModel
from nucseg.tiling import Maps, Tile
from nucseg_cache import CacheError, Store
from nucseg_cache.formats import checked, format_named
from nucseg_pipeline.modelling.device import choose_device
from nucseg_pipeline.runs.provenance import native_mpp, native_px
from nucseg_pipeline.runs.run import TrainedRun, encoder_files

CPU_BATCH, GPU_BATCH = 2, 8
"""Tiles at once, where nobody says how many: an encoder's guard compares two at least."""

Image = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Native:
    """What the images were like that a run was trained on."""

    tile_px: int
    """Their longest side."""
    mpp: float | None
    """Microns a pixel."""


def native_images(run: TrainedRun, tile_px: int | None, mpp: float | None) -> Native:
    """What the training images were like: as told, else as the run records it, else as its store shows it.

    Raises:
        ConfigError: nobody knows how large they were.
    """
    recorded = Native(run.inputs.native_px, run.inputs.mpp or None)
    if not recorded.tile_px and tile_px is None:  # a run of an older version
        try:
            store = Store.open(run.inputs.store)
        except CacheError as error:
            raise ConfigError(
                f"The run {run.name} does not record how large its training images were, and its store cannot tell "
                f"({error}) Say it with --tile-px (512 for NuInsSeg and CryoNuSeg, 256 for CoNIC), or train anew."
            ) from None
        recorded = Native(native_px(store, run.split.train), native_mpp(store, run.split.train) or None)
    return Native(tile_px or recorded.tile_px, mpp or recorded.mpp)


class Engine:
    """Says of tiles what `Run.predict` says of the rows of a store: the same preparation, rounding and network."""

    def __init__(self, run: TrainedRun, model: SegmentationModel, encoder: Encoder | None, batch_size: int) -> None:
        self.side_px = int(run.inputs.preparation["side_px"])
        self.stain = _known_stain(run)
        self.encoder = encoder
        self.n_maps = 1 if run.config.instance_head == "none" else 2
        self.batch_size = batch_size
        self._at_once = AdaptiveBatcher(batch_size)
        self._model = model
        self._device = next(model.parameters()).device
        self._format = format_named(run.inputs.embedding["format"]) if encoder is not None else None

    @classmethod
    def of(
        cls, run: TrainedRun, *, weights: Path | None, device: str, threads: int | None, batch_size: int | None
    ) -> Engine:
        """Load the network and find the encoder.

        Raises:
            ConfigError: the checkpoint cannot be read; weights for a network that was trained without guidance.
            EncoderError: the encoder's weights are not found, or are others.
        """
        if threads is not None:
            torch.set_num_threads(threads)
        chosen = choose_device(device)
        identity, encoder = run.inputs.embedding, None
        if identity:
            encoder = open_recorded(
                identity, weights=weights, hints=encoder_files(run.config),
                device=_encoder_device(identity["architecture"], device), threads=threads,
            )  # fmt: skip
        elif weights is not None:
            raise ConfigError(f"{run.name} was trained without guidance: it has no encoder, and takes no --weights.")
        at_once = batch_size or (CPU_BATCH if chosen.type == "cpu" else GPU_BATCH)
        return cls(run, run.network().to(chosen), encoder, at_once)

    def maps(self, tiles: Sequence[Tile], regions: Sequence[Image], tile_px: int) -> list[Maps]:
        """What the network says of tiles, (C, to_h, to_w) each, without padding.

        Args:
            tiles: where they are.
            regions: their pixels on the reading grid, (h, w, 3).
            tile_px: side of a tile there.
        """
        images = np.zeros((len(tiles), self.side_px, self.side_px, 3), np.uint8)
        for square, tile, region in zip(images, tiles, regions, strict=True):
            square[: tile.to_h, : tile.to_w] = resized(region, tile.to_h, tile.to_w)
        embeddings = self._embedded([_widened(region, tile_px) for region in regions])
        parts = self._at_once.batches(range(len(tiles)), lambda part: self._said(images, embeddings, part))
        made = [maps for _, part in parts for maps in part]
        return [maps[:, : tile.to_h, : tile.to_w] for tile, maps in zip(tiles, made, strict=True)]

    def _embedded(self, images: Sequence[Image]) -> npt.NDArray[np.float32] | None:
        """(B, 256, 64, 64), rounded as the store of the training rounded them."""
        if self.encoder is None or self._format is None:
            return None
        stored = self._format.encode(checked(self.encoder.encode(images)))
        return np.asarray(self._format.decode(stored), np.float32)

    @torch.no_grad()
    def _said(self, images: Image, embeddings: npt.NDArray[np.float32] | None, part: Sequence[int]) -> Maps:
        """(B, C, side, side) of consecutive tiles."""
        some = slice(part[0], part[-1] + 1)
        shown = torch.from_numpy(images[some]).to(self._device).permute(0, 3, 1, 2).contiguous().float() / 255
        guide = None if embeddings is None else torch.from_numpy(embeddings[some]).to(self._device)
        outputs = self._model.outputs(shown, guide)
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
            f"{run.name} was trained on images normalised by {stain} in another way than this version does it "
            f"({', '.join(sorted(differing))}). Use the version that embedded them, or embed and train anew."
        )
    return stain


def _encoder_device(architecture: str, device: str) -> str:
    """An ONNX file runs on the CPU or on CUDA; where the network runs elsewhere, it chooses for itself."""
    return device if architecture != "onnx" or device in ("auto", "cpu", "cuda") else "auto"


def _widened(region: Image, tile_px: int) -> Image:
    """A region as wide as a tile, so that an encoder, which scales by the longest side, sees it at the same scale.

    Only an image that is smaller than a tile has such regions. The encoder's own padding is its mean colour.
    """
    if max(region.shape[:2]) >= tile_px:
        return region
    wide = np.empty((region.shape[0], tile_px, 3), np.uint8)
    wide[:] = np.rint(PIXEL_MEAN).astype(np.uint8)
    wide[:, : region.shape[1]] = region
    return wide
