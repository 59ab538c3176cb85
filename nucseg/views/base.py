"""What every view of an image is."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class View(ABC):
    """One way to show every image of a data set: the same image always gives the same pixels."""

    has_own_image: ClassVar[bool]
    """Whether its prepared image is kept beside its embedding; if not, pixels of the sample's were only moved."""

    @property
    @abstractmethod
    def name(self) -> str:
        """Of letters, digits, hyphens and underscores: the view's name in a store."""

    @property
    @abstractmethod
    def described(self) -> Mapping[str, str]:
        """Everything that decides the view's pixels, for a store to keep and to compare."""

    @abstractmethod
    def apply(self, image: Image, sample_id: str) -> Image:
        """Show an image in this view.

        Args:
            image: (H, W, 3) uint8 RGB, the native pixels.
            sample_id: of its sample; what is drawn by chance is drawn from it.

        Returns:
            (H', W', 3) uint8 RGB.
        """
