"""What a prediction of new images is told to do."""

import math
from dataclasses import dataclass
from pathlib import Path

from nucseg.errors import ConfigError
from nucseg_pipeline.config.checks import check_at_least, check_device

MPP_RANGE = (0.01, 100.0)
"""Microns a pixel beyond which a number is in another unit."""


@dataclass(frozen=True, kw_only=True)
class PredictConfig:
    """What is needed to find nuclei in new images."""

    images: tuple[Path, ...]
    """Image files, and folders whose images are meant; at least one."""
    run: Path
    """Folder of the finished run whose network predicts."""
    out: Path
    """Folder in which every image gets a folder of its own, named after it."""
    weights: Path | None = None
    """Weights of the run's encoder; None looks for them by their digest."""
    mpp: float | None = None
    """Microns a pixel of the images; None takes what each file says."""
    trained_mpp: float | None = None
    """Microns a pixel of the images that the run was trained on; None takes what the run records."""
    tile_px: int | None = None
    """Longest side of the images that the run was trained on, in pixels; None takes what the run records."""
    overlap: float = 0.5
    """Share of its side that a tile has in common with each neighbour; less is faster, and depends more on the grid."""
    everything: bool = False
    """Whether tiles without tissue are predicted too."""
    device: str = "auto"
    """auto, cpu, mps, cuda or cuda:N."""
    threads: int | None = None
    """CPU threads; None leaves the choice to torch."""
    batch_size: int | None = None
    """Most tiles that the network sees at once; None takes 8 on a GPU and 2 on a CPU, which gains nothing by more."""

    def __post_init__(self) -> None:
        if not self.images:
            raise ConfigError("There is nothing to predict. Name an image, or a folder of images.")
        check_device(self.device)
        check_at_least(self, 1, ("threads", "batch_size"))
        check_at_least(self, 16, ("tile_px",))
        if not 0 <= self.overlap <= 0.75:
            raise ConfigError(f"overlap is a share of a tile's side from 0 to 0.75, got {self.overlap}.")
        low, high = MPP_RANGE
        for name in ("mpp", "trained_mpp"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and low <= value <= high):
                raise ConfigError(f"{name} is microns a pixel, from {low} to {high:.0f}; 0.25 is usual. Got {value}.")
