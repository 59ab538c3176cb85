"""What every segmentation network of nucseg is: its settings, its input, its output."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeVar

import torch
from torch import Tensor, nn

from nucseg.errors import ConfigError
from nucseg.models.blocks import N_LEVELS, Encoder, SideHeads, find_activation
from nucseg.models.fusion import EMBEDDING_CHANNELS, EMBEDDING_GRID, build_fusion

STRIDE_PX: int = 2 ** (N_LEVELS - 1)
"""Pixels of the image in one cell of the bottleneck: the image is halved between levels."""

N_CLASSES = 2
"""Background and nucleus."""

NEVER_LOGIT = 10.0
"""Logit of background, and negative of that of nucleus, in an image without nuclei: a probability of 2e-9."""

Part = TypeVar("Part")

INSTANCE_HEADS = ("none", "distance")
"""What a network may predict beside the classes, to tell touching nuclei apart."""

MOST_WIDTH = 4096
"""Sixteen times as many channels at the bottleneck: tens of gigabytes in a single convolution."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """What the networks have in common."""

    width: int = 32
    """Channels of the first level; each deeper one has twice as many: 32, 64, 128, 256, 512."""

    activation: str | None = None
    """A name of `nucseg.models.ACTIVATIONS`; None takes the architecture's own."""

    fusion: str = "xgfb"
    """How the embedding enters: a name of `nucseg.models.FUSIONS`."""

    dropout: float = 0.3
    """Share of the bottleneck's values dropped in training (paper A, section 3)."""

    deep_supervision: bool = False
    """Whether every decoder level predicts too (Huang et al. 2020, section 2.2)."""

    classification_guided: bool = False
    """Whether a branch decides if there is any nucleus, and rules the map out if not (Huang et al. 2020, 2.3)."""

    instance_head: str = "none"
    """A name of `INSTANCE_HEADS`; distance predicts how far inside its nucleus a pixel lies."""

    def __post_init__(self) -> None:
        if not 1 <= self.width <= MOST_WIDTH:
            raise ConfigError(f"width is a number of channels, 1 to {MOST_WIDTH}, got {self.width}. The paper's is 32.")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout is a share, at least 0 and below 1, got {self.dropout}. The paper's is 0.3.")
        if self.activation is not None:
            find_activation(self.activation)
        if self.instance_head not in INSTANCE_HEADS:
            raise ConfigError(f"no instance head is called {self.instance_head!r}. Known: {', '.join(INSTANCE_HEADS)}.")


@dataclass(frozen=True, eq=False)
class Outputs:
    """All that a network says of a batch; the loss needs it, a prediction the first of `sides` and `distance`."""

    sides: list[Tensor]
    """Logits of every output, finest first, each (B, 2, H, W); one without deep supervision."""

    presence: Tensor | None = None
    """(B,) logit that there is a nucleus; None without classification guidance."""

    distance: Tensor | None = None
    """(B, H, W) as `nucseg.nuclei.instances.distance_map` has it of the truth; None without that head."""


class SegmentationModel(nn.Module, ABC):
    """A network from an image, and for guided ones its embedding, to the logits of two classes.

    All are an encoder of five levels, the guide, dropout at the bottleneck, and a decoder, which is what an
    architecture adds.

    Shapes:
        image       (B, 3, H, W)      float in [0, 1], RGB; H and W multiples of 16
        embedding   (B, 256, 64, 64)  of the same images, or None for a network without guidance
        returns     (B, 2, H, W)      logits of background and nucleus
    """

    source: ClassVar[str]
    """Who described the architecture, and where."""

    own_activation: ClassVar[str] = "relu"
    """The activation of its source."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        activation = config.activation or self.own_activation
        self.encoder = Encoder(config.width, activation=activation)
        self.dropout = nn.Dropout(config.dropout)
        finest, *coarser = self._build_decoder(self.encoder.channels, activation)
        self.heads = SideHeads((finest,), N_CLASSES)
        # the options last, each from one random state: so a seed gives whatever networks share the same weights
        self.fusion = _drawn_apart(lambda: build_fusion(config.fusion, self.encoder.channels))
        self.presence, self.distance = None, None
        if config.deep_supervision:
            _drawn_apart(lambda: self.heads.add(coarser))
        if config.classification_guided:
            self.presence = _drawn_apart(lambda: PresenceHead(self.encoder.channels[-1]))
        if config.instance_head == "distance":
            self.distance = _drawn_apart(lambda: nn.Conv2d(finest, 1, 3, padding=1))

    @property
    def guided(self) -> bool:
        """Whether the network reads the embedding at all; if not, None may be given, and a given one is ignored."""
        return self.config.fusion != "none"

    def forward(self, image: Tensor, embedding: Tensor | None = None) -> Tensor:
        """Return the logits of the finest output."""
        return self.outputs(image, embedding).sides[0]

    def outputs(self, image: Tensor, embedding: Tensor | None = None) -> Outputs:
        """Return all that the network says.

        In evaluation, images in which the classification branch finds no nucleus are background in every output. Huang
        et al. 2020 multiply each side output by the branch's decision, 0 or 1: for probabilities that is the same.
        They say nothing of training; here the maps are left alone in it, for a product with 0 would take the
        gradient from those of every image that the branch gets wrong.

        Raises:
            ConfigError: an input has another shape or type than the class says.
        """
        _check_image(image)
        if self.guided:
            _check_embedding(embedding, n_images=len(image))
        scales: list[Tensor] = self.fusion(self.encoder((image - 0.5) / 0.5), embedding)
        presence = None if self.presence is None else self.presence(scales[-1])
        scales[-1] = self.dropout(scales[-1])
        decoded = self._decode(scales)
        sides: list[Tensor] = self.heads(decoded)
        distance = None if self.distance is None else self.distance(decoded[0])[:, 0]
        if presence is not None and not self.training:
            empty = presence < 0
            sides = [_ruled_out(side, empty) for side in sides]
            distance = None if distance is None else distance.masked_fill(empty[:, None, None], 0)
        return Outputs(sides, presence, distance)

    @abstractmethod
    def _build_decoder(self, channels: Sequence[int], activation: str) -> Sequence[int]:
        """Add the decoder's modules; return the channels of the maps of `_decode`.

        Args:
            channels: of the encoder's levels, finest first, the last the bottleneck's.
            activation: a name of `nucseg.models.ACTIVATIONS`.
        """

    @abstractmethod
    def _decode(self, scales: list[Tensor]) -> list[Tensor]:
        """Turn the encoder's maps into the decoder's.

        Shapes:
            scales[i]   (B, channels[i], H / 2**i, W / 2**i)   finest first, the last the bottleneck
            returns[i]  (B, decoded[i], H / 2**i, W / 2**i)    finest first
        """


class PresenceHead(nn.Sequential):
    """The branch of the classification-guided module: is there any nucleus? (Huang et al. 2020, section 2.3).

    Dropout, 1x1 convolution and the maximum over the bottleneck's grid, as they have it. Their two outputs, there and
    not there, each with a sigmoid, of which the larger decides, are one logit here, which is all that two classes
    need that exclude each other; its sigmoid is in the loss, and its sign decides.

    Shapes: (B, channels, G, G) -> (B,) logit
    """

    def __init__(self, channels: int) -> None:
        super().__init__(nn.Dropout(0.5), nn.Conv2d(channels, 1, 1), nn.AdaptiveMaxPool2d(1), nn.Flatten(0))


def _drawn_apart(build: Callable[[], Part]) -> Part:
    """Build something from torch's random state, and leave that state as it was."""
    with torch.random.fork_rng(devices=[]):
        return build()


def _ruled_out(logits: Tensor, empty: Tensor) -> Tensor:
    """Make the images marked by `empty` (B,) certain background, in (B, 2, H, W)."""
    background = torch.tensor([NEVER_LOGIT, -NEVER_LOGIT], dtype=logits.dtype, device=logits.device)
    return torch.where(empty[:, None, None, None], background[:, None, None], logits)


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
