"""Random square crops of an image in one of eight orientations, for students trained on embeddings alone."""

import random
from dataclasses import dataclass

import numpy as np

from nucseg.photometric.ranges import Range
from nucseg.photometric.transforms import Change
from nucseg.views.base import Image
from nucseg.views.orientation import turned

CROP = "crop"
"""Key of the crop in `View.described`. Masks and other views do not match a cropped image."""


@dataclass(frozen=True)
class Crop:
    """A distribution of crops."""

    scale: Range
    """Smallest and largest side of the square, as a share of the image's shorter side; drawn log-uniformly."""

    @property
    def described(self) -> str:
        """The distribution in words, for `View.described`."""
        low, high = self.scale
        return f"a square of {low:g} to {high:g} of the shorter side, one of 8 orientations"

    def draw(self, draws: random.Random) -> Change:
        """Draw a crop: the same relative size and position for an image of any size."""
        low, high = self.scale
        share = low * (high / low) ** draws.random()
        down, right, element = draws.random(), draws.random(), int(8 * draws.random())
        return lambda image: _crop(image, share, down, right, element)


def _crop(image: Image, share: float, down: float, right: float, element: int) -> Image:
    height, width = image.shape[:2]
    side = max(1, round(share * min(height, width)))
    top, left = int(down * (height - side + 1)), int(right * (width - side + 1))
    return turned(np.ascontiguousarray(image[top : top + side, left : left + side]), element)
