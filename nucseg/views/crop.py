"""Random square crops of an image in one of eight orientations."""

import random
import re
from dataclasses import dataclass

import numpy as np

from nucseg.errors import ConfigError
from nucseg.photometric.ranges import Range
from nucseg.views.base import Image
from nucseg.views.orientation import turned

CROP = "crop"
"""Key of the crop in `View.described`."""

_DESCRIBED = re.compile(r"a square of (\S+) to (\S+) of the shorter side, one of 8 orientations")


@dataclass(frozen=True)
class Square:
    """The crop of one image: relative size and position are the same for an image of any size."""

    share: float
    """Side, as a share of the image's shorter side."""
    down: float
    right: float
    """Position, as a share of the room that the image leaves."""
    element: int
    """Orientation, an element of `nucseg.replay.d4`."""

    def box(self, size: tuple[int, int]) -> tuple[int, int, int]:
        """Top, left and side in pixels in an image of size (H, W)."""
        height, width = size
        side = max(1, round(self.share * min(height, width)))
        return int(self.down * (height - side + 1)), int(self.right * (width - side + 1)), side

    def __call__(self, image: Image) -> Image:
        """Crop an image (H, W, 3) and turn the square."""
        top, left, side = self.box((image.shape[0], image.shape[1]))
        return turned(np.ascontiguousarray(image[top : top + side, left : left + side]), self.element)


@dataclass(frozen=True)
class Crop:
    """A distribution of crops."""

    scale: Range
    """Smallest and largest side of the square, as a share of the image's shorter side; drawn log-uniformly."""

    @property
    def described(self) -> str:
        """The distribution in words, for `View.described`."""
        # all digits, because masks are drawn from this text
        low, high = (repr(limit).removesuffix(".0") for limit in self.scale)
        return f"a square of {low} to {high} of the shorter side, one of 8 orientations"

    @classmethod
    def parse(cls, described: str) -> "Crop":
        """The distribution that was described; ConfigError if this version cannot draw it."""
        found = _DESCRIBED.fullmatch(described)
        if found is None:
            raise ConfigError(
                f"This version knows no crops that are {described!r}, so it cannot move masks with them. Use the "
                "version that embedded these views, or embed them again under another name."
            )
        return cls((float(found[1]), float(found[2])))

    def draw(self, draws: random.Random) -> Square:
        """Draw a crop."""
        low, high = self.scale
        share = low * (high / low) ** draws.random()
        return Square(share, draws.random(), draws.random(), int(8 * draws.random()))
