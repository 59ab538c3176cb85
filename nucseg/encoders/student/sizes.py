"""The sizes of student networks, and the path of the shipped one; needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path

STUDENT_PX = 256
"""Side of the square image that a student reads, in pixels, as in prepared samples."""

GRID = 64
"""Cells per side of the embedding, each of 4 px."""


@dataclass(frozen=True, kw_only=True)
class StudentShape:
    """Hyperparameters of a `StudentNetwork`."""

    channels: int
    """Channels on the grid of 64 cells; twice as many on 32, four times as many on 16."""

    fine_blocks: int
    """Residual blocks on 64 cells, before and again after the coarser grids."""

    coarse_blocks: int
    """Transformer blocks on 16 cells."""

    positions: int = 24
    """Learned 64 x 64 maps that depend only on the position."""


SIZES = {
    "small": StudentShape(channels=32, fine_blocks=1, coarse_blocks=1),
    "medium": StudentShape(channels=48, fine_blocks=1, coarse_blocks=2),
    "large": StudentShape(channels=64, fine_blocks=2, coarse_blocks=2),
}
"""The available sizes by name."""


def shipped_student() -> Path:
    """Path of the student that is shipped with the package."""
    return Path(str(resources.files("nucseg.encoders.student") / "student.safetensors"))
