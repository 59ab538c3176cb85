"""What every segmentation network of nucseg is: its settings, its input, its output."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor, nn

from nucseg.errors import ConfigError

STRIDE_PX = 16
"""Pixels of the image in one cell of the bottleneck: four halvings."""

EMBEDDING_CHANNELS, EMBEDDING_GRID = 256, 64
"""Channels and cells a side of a cached embedding: SAM's neck, the same for every size of encoder."""

N_CLASSES = 2
"""Background and nucleus."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """What the networks have in common."""

    width: int = 32
    """Channels of the first level; each deeper one has twice as many: 32, 64, 128, 256, 512."""

    fusion: str = "xgfb"
    """How the embedding enters: a name of `nucseg.models.FUSIONS`."""

    dropout: float = 0.3
    """Share of the bottleneck's values dropped in training (paper A, section 3)."""

    deep_supervision: bool = False
    """Whether `side_logits` also predicts from the deeper decoder nodes (Huang et al. 2020, section 2.2)."""

    def __post_init__(self) -> None:
        if self.width < 1:
            raise ConfigError(f"width is a number of channels, 1 or more, got {self.width}. The paper's is 32.")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout is a share, at least 0 and below 1, got {self.dropout}. The paper's is 0.3.")


class SegmentationModel(nn.Module, ABC):
    """A network from an image, and for guided ones its embedding, to the logits of two classes.

    Shapes:
        image       (B, 3, H, W)      float in [0, 1], RGB; H and W multiples of 16
        embedding   (B, 256, 64, 64)  of the same images, or None for a network without guidance
        returns     (B, 2, H, W)      logits of background and nucleus
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config

    @property
    def guided(self) -> bool:
        """Whether the network reads the embedding at all; if not, None may be given, and a given one is ignored."""
        return self.config.fusion != "none"

    def forward(self, image: Tensor, embedding: Tensor | None = None, *, sides: bool = False) -> Tensor | list[Tensor]:
        """Return the logits, or with `sides` what `side_logits` returns.

        Wrappers for mixed precision and for several processes only see calls of the model itself:
        a training loop that wants the side outputs asks for them here.
        """
        logits = self.side_logits(image, embedding)
        return logits if sides else logits[0]

    def side_logits(self, image: Tensor, embedding: Tensor | None = None) -> list[Tensor]:
        """Return the logits of every output, finest first, each (B, 2, H, W); one without deep supervision.

        Raises:
            ConfigError: an input has another shape or type than the class says.
        """
        _check_image(image)
        if self.guided:
            _check_embedding(embedding, n_images=len(image))
        return self._side_logits((image - 0.5) / 0.5, embedding)

    @abstractmethod
    def _side_logits(self, image: Tensor, embedding: Tensor | None) -> list[Tensor]:
        """Do as `side_logits`, for an image in [-1, 1] and inputs that have been checked."""


def _check_image(image: Tensor) -> None:
    if image.ndim != 4 or image.shape[1] != 3 or not image.is_floating_point():
        raise ConfigError(
            f"a model takes images (B, 3, H, W) of floats in [0, 1], got {tuple(image.shape)} of {image.dtype}. "
            "Move the channels to the second axis and divide uint8 by 255."
        )
    height, width = image.shape[-2:]
    if height % STRIDE_PX or width % STRIDE_PX or not height or not width:
        raise ConfigError(
            f"a model takes images whose sides are multiples of {STRIDE_PX} px (it halves them four times), "
            f"got {height}x{width}. Pad to {_next_multiple(height)}x{_next_multiple(width)}."
        )


def _next_multiple(side_px: int) -> int:
    return max(-(-side_px // STRIDE_PX), 1) * STRIDE_PX


def _check_embedding(embedding: Tensor | None, *, n_images: int) -> None:
    if embedding is None:
        raise ConfigError(
            "this model is guided by an embedding and got none. "
            "Give the cached embeddings of the images, or build the model with fusion 'none'."
        )
    expected = (n_images, EMBEDDING_CHANNELS, EMBEDDING_GRID, EMBEDDING_GRID)
    if tuple(embedding.shape) != expected:
        raise ConfigError(
            f"expected embeddings {expected}, one for each image, got {tuple(embedding.shape)}. "
            "Read them from the same rows as the images."
        )
