"""The base class of all segmentation networks, with their configuration and outputs."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeVar

import torch
from torch import Tensor, nn

from nucseg.errors import ConfigError, known
from nucseg.models.blocks import N_LEVELS, Encoder, SideHeads, find_activation
from nucseg.models.fusion import EMBEDDING_CHANNELS, EMBEDDING_GRID, build_fusion
from nucseg.models.tissue import centred_tissue, tissue_weights

STRIDE_PX: int = 2 ** (N_LEVELS - 1)
"""Side of a cell of the bottleneck in image pixels: each level halves the image."""

N_CLASSES = 2
"""Background and nucleus."""

NEVER_LOGIT = 10.0
"""Logit of background, and negated logit of nucleus, in images without nuclei: a nucleus probability of 2e-9."""

Part = TypeVar("Part")

INSTANCE_HEADS = ("none", "distance")
"""What a network can predict in addition to the classes, to separate touching nuclei."""

MAX_WIDTH = 4096
"""The bottleneck then has sixteen times as many channels: tens of gigabytes in a single convolution."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The options that all networks share."""

    width: int = 32
    """Channels of the first level; each deeper level has twice as many: 32, 64, 128, 256, 512."""

    activation: str | None = None
    """A name of `nucseg.models.ACTIVATIONS`; None uses the architecture's own."""

    fusion: str = "xgfb"
    """How the embedding enters: a name of `nucseg.models.FUSIONS`."""

    tissue_only: bool = False
    """Whether only tissue guides: gates squeeze over it, and the embedding, centred over it, is 0 elsewhere. Glass or
    black in a part of the image then hardly changes the nuclei in the rest (`nucseg.models.tissue`)."""

    dropout: float = 0.3
    """Share of the bottleneck's values dropped in training (paper A, section 3)."""

    deep_supervision: bool = False
    """Whether every decoder level predicts as well (Huang et al. 2020, section 2.2)."""

    classification_guided: bool = False
    """Whether a branch classifies images without nuclei and suppresses their maps (Huang et al. 2020, section 2.3)."""

    instance_head: str = "none"
    """A name of `INSTANCE_HEADS`; `distance` predicts how far inside its nucleus a pixel lies."""

    def __post_init__(self) -> None:
        if not 1 <= self.width <= MAX_WIDTH:
            raise ConfigError(f"width must be between 1 and {MAX_WIDTH}, got {self.width}. The paper uses 32.")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout must be at least 0 and below 1, got {self.dropout}. The paper uses 0.3.")
        if self.activation is not None:
            find_activation(self.activation)
        if self.instance_head not in INSTANCE_HEADS:
            raise ConfigError(
                f"Instance head {self.instance_head!r} is not known. {known(self.instance_head, INSTANCE_HEADS)}"
            )


@dataclass(frozen=True, eq=False)
class Outputs:
    """All outputs for a batch: the loss uses all of them, a prediction only `sides[0]` and `distance`."""

    sides: list[Tensor]
    """Logits of every output, finest first, each (B, 2, H, W); a single one without deep supervision."""

    presence: Tensor | None = None
    """(B,) logit that the image contains a nucleus; None without classification guidance."""

    distance: Tensor | None = None
    """(B, H, W) prediction of `nucseg.nuclei.instances.distance_map`; None without that head."""


class SegmentationModel(nn.Module, ABC):
    """A network from an image, and its embedding if guided, to the logits of two classes.

    All networks share an encoder of five levels, the fusion with the embedding, and dropout at the bottleneck; an
    architecture adds the decoder.

    Shapes:
        image       (B, 3, H, W)      float in [0, 1], RGB; H and W multiples of 16
        embedding   (B, 256, 64, 64)  of the same images, or None for a network without guidance
        returns     (B, 2, H, W)      logits of background and nucleus
    """

    source: ClassVar[str]
    """The publication that describes the architecture."""

    own_activation: ClassVar[str] = "relu"
    """The activation used in that publication."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        activation = config.activation or self.own_activation
        self.encoder = Encoder(config.width, activation=activation)
        self.dropout = nn.Dropout(config.dropout)
        finest, *coarser = self._build_decoder(self.encoder.channels, activation)
        self.heads = SideHeads((finest,), N_CLASSES)
        # options last, and without advancing the random state: with one seed, the parts that networks share are equal
        self.fusion = _build_keeping_rng(lambda: build_fusion(config.fusion, self.encoder.channels))
        self.presence, self.distance = None, None
        if config.deep_supervision:
            _build_keeping_rng(lambda: self.heads.add(coarser))
        if config.classification_guided:
            self.presence = _build_keeping_rng(lambda: PresenceHead(self.encoder.channels[-1]))
        if config.instance_head == "distance":
            self.distance = _build_keeping_rng(lambda: nn.Conv2d(finest, 1, 3, padding=1))

    @property
    def guided(self) -> bool:
        """Whether the network reads the embedding; if not, it may be None and is ignored."""
        return self.config.fusion != "none"

    def forward(self, image: Tensor, embedding: Tensor | None = None) -> Tensor:
        """Return the logits of the finest output."""
        return self.outputs(image, embedding).sides[0]

    def outputs(self, image: Tensor, embedding: Tensor | None = None) -> Outputs:
        """Return all outputs.

        In evaluation, images in which the classification branch finds no nucleus are background in every output. Huang
        et al. 2020 multiply each side output by the branch's decision, 0 or 1, which is the same for probabilities.
        They do not describe training; here the maps are not changed in training, because a product with 0 would remove
        the gradient of every image that the branch classifies wrongly.

        Raises:
            ConfigError: an input does not have the documented shape or type.
        """
        _check_image(image)
        if self.guided:
            _check_embedding(embedding, n_images=len(image))
        tissue = None
        if embedding is not None and self.guided and self.config.tissue_only:
            tissue = tissue_weights(image)
            embedding = centred_tissue(embedding, tissue)
        scales: list[Tensor] = self.fusion(self.encoder((image - 0.5) / 0.5), embedding, tissue)
        presence = None if self.presence is None else self.presence(scales[-1])
        scales[-1] = self.dropout(scales[-1])
        decoded = self._decode(scales)
        sides: list[Tensor] = self.heads(decoded)
        distance = None if self.distance is None else self.distance(decoded[0])[:, 0]
        if presence is not None and not self.training:
            empty = presence < 0
            sides = [_suppress(side, empty) for side in sides]
            distance = None if distance is None else distance.masked_fill(empty[:, None, None], 0)
        return Outputs(sides, presence, distance)

    @abstractmethod
    def _build_decoder(self, channels: Sequence[int], activation: str) -> Sequence[int]:
        """Add the decoder's modules; return the channels of the maps that `_decode` returns.

        Args:
            channels: of the encoder's levels, finest first, bottleneck last.
            activation: a name of `nucseg.models.ACTIVATIONS`.
        """

    @abstractmethod
    def _decode(self, scales: list[Tensor]) -> list[Tensor]:
        """Compute the decoder's maps from the encoder's.

        Shapes:
            scales[i]   (B, channels[i], H / 2**i, W / 2**i)   finest first, bottleneck last
            returns[i]  (B, decoded[i], H / 2**i, W / 2**i)    finest first
        """


class PresenceHead(nn.Sequential):
    """The branch of the classification-guided module: is there any nucleus? (Huang et al. 2020, section 2.3).

    Dropout, 1x1 convolution and the maximum over the bottleneck's grid, as in the paper. The paper has two outputs,
    present and absent, each with a sigmoid, and the larger one decides; here a single logit represents the two
    exclusive classes. Its sigmoid is part of the loss, and its sign decides.

    Shapes: (B, channels, G, G) -> (B,) logit
    """

    def __init__(self, channels: int) -> None:
        super().__init__(nn.Dropout(0.5), nn.Conv2d(channels, 1, 1), nn.AdaptiveMaxPool2d(1), nn.Flatten(0))


def _build_keeping_rng(build: Callable[[], Part]) -> Part:
    """Draw a part's weights from torch's random state, then restore that state."""
    with torch.random.fork_rng(devices=[]):
        return build()


def _suppress(logits: Tensor, empty: Tensor) -> Tensor:
    """Make the images marked by `empty` (B,) certain background, in (B, 2, H, W)."""
    background = torch.tensor([NEVER_LOGIT, -NEVER_LOGIT], dtype=logits.dtype, device=logits.device)
    return torch.where(empty[:, None, None, None], background[:, None, None], logits)


def _check_image(image: Tensor) -> None:
    if image.ndim != 4 or image.shape[1] != 3 or not image.is_floating_point():
        raise ConfigError(
            f"A model reads images (B, 3, H, W) of floats in [0, 1], got {tuple(image.shape)} of {image.dtype}. "
            "Move the channels to the second axis and divide uint8 by 255."
        )
    height, width = image.shape[-2:]
    if height % STRIDE_PX or width % STRIDE_PX or not height or not width:
        raise ConfigError(
            f"A model reads images whose sides are multiples of {STRIDE_PX} px (it halves them four times), "
            f"got {height}x{width}. Pad to {_next_multiple(height)}x{_next_multiple(width)}."
        )


def _next_multiple(side_px: int) -> int:
    return max(-(-side_px // STRIDE_PX), 1) * STRIDE_PX


def _check_embedding(embedding: Tensor | None, *, n_images: int) -> None:
    if embedding is None:
        raise ConfigError(
            "This model is guided by an embedding and got none. "
            "Give the cached embeddings of the images, or build the model with fusion 'none'."
        )
    expected = (n_images, EMBEDDING_CHANNELS, EMBEDDING_GRID, EMBEDDING_GRID)
    if tuple(embedding.shape) != expected:
        raise ConfigError(
            f"Expected embeddings {expected}, one for each image, got {tuple(embedding.shape)}. "
            "Read them from the same rows as the images."
        )
