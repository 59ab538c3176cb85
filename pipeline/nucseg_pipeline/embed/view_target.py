"""Where the embeddings of one view go, and which are wanted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nucseg.views import View
from nucseg_cache import Embeddings

SIDE_PX = 256
"""Side of a prepared sample in pixels."""


@dataclass(frozen=True, eq=False)
class Target:
    """Where the embeddings of one view go."""

    embeddings: Embeddings
    wanted: frozenset[int]
    """The rows that are to have an embedding in this view."""
    view: View | None = None
    """None for the image as it is."""

    @property
    def name(self) -> str:
        """The view's name in the store."""
        return self.embeddings.view

    @property
    def keeps_images(self) -> bool:
        """Whether the prepared images of the view are stored beside their embeddings."""
        return self.view is not None and self.view.has_own_image

    def missing(self, within: range | None = None) -> list[int]:
        """The wanted rows without an embedding in this view, those with a damaged file too."""
        return [row for row in self.embeddings.missing(within, sizes=True) if row in self.wanted]

    def shown(self, image: NDArray[np.uint8], sample_id: str) -> NDArray[np.uint8]:
        """An image (H, W, 3) as the encoder is to see it."""
        return image if self.view is None else self.view.apply(image, sample_id)
