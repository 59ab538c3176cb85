"""The interface of all views."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class View(ABC):
    """A transform of every image of a data set; the same image always gives the same pixels."""

    has_own_image: ClassVar[bool]
    """Whether a store keeps the view's image, which is needed unless the sample's pixels are only moved."""

    @property
    @abstractmethod
    def name(self) -> str:
        """The view's name in a store: letters, digits, hyphens and underscores."""

    @property
    @abstractmethod
    def described(self) -> Mapping[str, str]:
        """All that determines the view's pixels; a store records and compares it."""

    @abstractmethod
    def apply(self, image: Image, sample_id: str) -> Image:
        """Transform an image.

        Args:
            image: (H, W, 3) uint8 RGB, the native pixels.
            sample_id: id of its sample, the seed of whatever is random.

        Returns:
            (H', W', 3) uint8 RGB.
        """
