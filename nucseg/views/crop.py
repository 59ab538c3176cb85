"""A square part of an image in one of its eight orientations, for networks that learn nothing but embeddings."""

import random
from dataclasses import dataclass

import numpy as np

from nucseg.views.base import Image
from nucseg.views.orientation import turned
from nucseg.views.transforms import Change, Range

CROP = "crop"
"""Under this name a view that shows a part describes which; masks and other views do not fit it."""


@dataclass(frozen=True)
class Crop:
    """How the part is drawn."""

    scale: Range
    """Least and most side of the square, in shorter sides of the image; its logarithm is drawn evenly."""

    @property
    def described(self) -> str:
        """Everything that decides which part is shown."""
        least, most = self.scale
        return f"a square of {least:g} to {most:g} of the shorter side, one of 8 orientations"

    def draw(self, draws: random.Random) -> Change:
        """Draw a part; the same share and place of an image of any size."""
        least, most = self.scale
        share = least * (most / least) ** draws.random()
        down, right, element = draws.random(), draws.random(), int(8 * draws.random())
        return lambda image: _part(image, share, down, right, element)


def _part(image: Image, share: float, down: float, right: float, element: int) -> Image:
    height, width = image.shape[:2]
    side = max(1, round(share * min(height, width)))
    top, left = int(down * (height - side + 1)), int(right * (width - side + 1))
    return turned(np.ascontiguousarray(image[top : top + side, left : left + side]), element)
