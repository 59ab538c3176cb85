"""The seven other orientations of an image, numbered as in `nucseg.replay.d4`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, TypeVar

import numpy as np
import numpy.typing as npt

from nucseg.encoders.preprocess import PIXEL_MEAN
from nucseg.views.base import Image, View

Value = TypeVar("Value", bound=np.generic)

MOVES = (
    "horizontal flip",
    "vertical flip",
    "half turn",
    "transpose",
    "quarter turn, counterclockwise",
    "quarter turn, clockwise",
    "anti-transpose",
)
"""The elements 1 to 7 in words."""

PADDING = np.rint(PIXEL_MEAN).astype(np.uint8)
"""SAM's own padding colour: within half a grey level, the encoder sees it as zero."""


@dataclass(frozen=True)
class Orientation(View):
    """An image padded to a square at the bottom right, then flipped or rotated.

    The padding moves with the image, so that the prepared sample (also a square), its masks and the embedding's grid
    stay aligned under the same element.
    """

    element: int
    """1 to 7."""
    has_own_image: ClassVar[bool] = False

    @property
    def name(self) -> str:
        """`d4-1` to `d4-7`."""
        return f"d4-{self.element}"

    @property
    def described(self) -> Mapping[str, str]:
        """The element and the padding colour."""
        padding = " ".join(map(str, PADDING.tolist()))
        return {"orientation": f"{self.element}, {MOVES[self.element - 1]}", "padding": padding}

    def apply(self, image: Image, sample_id: str) -> Image:
        """Return the transformed square (max(H, W), max(H, W), 3)."""
        return turned(squared(image), self.element)


def turned(square: npt.NDArray[Value], element: int) -> npt.NDArray[Value]:
    """Copy a square (H, H) or (H, H, C), flipped or rotated by an element of `nucseg.replay.d4`."""
    import torch

    from nucseg.replay import d4

    n_channels = square.size // len(square) ** 2
    moved = d4.apply(torch.from_numpy(square).reshape(*square.shape[:2], n_channels).movedim(-1, 0), element)
    return np.ascontiguousarray(moved.movedim(0, -1).numpy()).reshape(square.shape)


def squared(image: Image) -> Image:
    """Copy an image (H, W, 3), padded at the bottom right to a square."""
    height, width = image.shape[:2]
    square = np.empty((max(height, width), max(height, width), 3), np.uint8)
    square[:] = PADDING
    square[:height, :width] = image
    return square
