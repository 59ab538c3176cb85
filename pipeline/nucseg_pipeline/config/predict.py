"""Configuration of `predict`."""

import math
from dataclasses import dataclass
from pathlib import Path

from nucseg.errors import ConfigError
from nucseg_pipeline.config.checks import check_at_least, check_device
from nucseg_pipeline.config.fields import convert_fields

MPP_RANGE = (0.01, 100.0)
"""Microns per pixel outside this range are taken for a mistake in the unit."""


@dataclass(frozen=True, kw_only=True)
class PredictConfig:
    """What is needed to find nuclei in new images."""

    images: tuple[Path, ...]
    """Image files, or folders of images."""
    run: Path
    """Folder of the finished run whose network predicts."""
    out: Path
    """Folder of the results; each image gets a folder in it, named after the image."""
    weights: Path | None = None
    """Weights of the run's encoder. Default: found by their digest."""
    scene: str | int | None = None
    """Name or number (from 1) of the scene in files with several. Default: all scenes."""
    convert: str | None = None
    """How images that are not 8-bit RGB or gray are read: none or full-range, as in embed. Default: as for the run."""
    mpp: float | None = None
    """Microns per pixel of the images, whose pixels are square. Default: read from each file."""
    trained_mpp: float | None = None
    """Microns per pixel of the training images. Default: as recorded in the run."""
    tile_px: int | None = None
    """Longest side of the training images, in pixels. Default: as recorded in the run."""
    overlap: float = 0.5
    """Overlap of neighbouring tiles, as a fraction of their side. Less is faster, but the result depends more on the
    position of the tiles."""
    everything: bool = False
    """Predict tiles without tissue, too, and what is black, unscanned or pen as it is."""
    device: str = "auto"
    """auto, cpu, mps, cuda or cuda:N."""
    threads: int | None = None
    """CPU threads. Default: chosen by PyTorch."""
    batch_size: int | None = None
    """Largest number of tiles per batch. Default: 8 on a GPU, 2 on a CPU."""

    def __post_init__(self) -> None:
        convert_fields(self)
        if not self.images:
            raise ConfigError("There is nothing to predict. Name an image, or a folder of images.")
        if self.convert is not None:
            from nucseg.data.conversion import check_conversion  # loads numpy, which help does without

            check_conversion(self.convert)
        check_device(self.device)
        check_at_least(self, 1, ("threads", "batch_size"))
        check_at_least(self, 16, ("tile_px",))
        if not 0 <= self.overlap <= 0.75:
            raise ConfigError(f"overlap is a fraction of a tile's side and must be from 0 to 0.75, got {self.overlap}.")
        low, high = MPP_RANGE
        for name in ("mpp", "trained_mpp"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and low <= value <= high):
                raise ConfigError(
                    f"{name} is in microns per pixel and must be from {low} to {high:.0f}; 0.25 is usual. Got {value}."
                )
