"""The sizes that a student comes in, and where the package keeps one; needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path

STUDENT_PX = 256
"""Side of the square that a student is shown, in pixels: that of the prepared samples."""

GRID = 64
"""Cells a side of the embedding, each of 4 px."""


@dataclass(frozen=True, kw_only=True)
class StudentShape:
    """Hyperparameters of a `StudentNetwork`."""

    channels: int
    """At the grid of 64 cells; twice as many at 32, four times as many at 16."""

    fine_blocks: int
    """Residual blocks at 64 cells, before and again after the coarser grids."""

    coarse_blocks: int
    """Transformer blocks at 16 cells."""

    positions: int = 24
    """Maps of 64 x 64 that depend on the place alone."""


SIZES = {
    "small": StudentShape(channels=32, fine_blocks=1, coarse_blocks=1),
    "medium": StudentShape(channels=48, fine_blocks=1, coarse_blocks=2),
    "large": StudentShape(channels=64, fine_blocks=2, coarse_blocks=2),
}
"""The sizes that can be asked for by name."""


def shipped_student() -> Path:
    """The file of the student that comes with the package."""
    return Path(str(resources.files("nucseg.encoders.student") / "student.safetensors"))
