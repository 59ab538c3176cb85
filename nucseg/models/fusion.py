"""Fusion blocks, through which the embedding of the foundation model enters the network."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nucseg.errors import ConfigError, known
from nucseg.models.blocks import ChannelGLU
from nucseg.models.tissue import tissue_mean

EMBEDDING_CHANNELS, EMBEDDING_GRID = 256, 64
"""Channels and cells per side of a cached embedding: the output of SAM's neck, the same for every encoder size."""

FINEST_GUIDED = 2
"""The finest level that `multiscale` guides: its cells are as large as the embedding's, 4 px of a 256 px image."""

N_HEADS = 8
"""Attention heads; the papers give no number. 8 divides 16 * width + 256 for every width."""


class Fusion(nn.Module, ABC):
    """Adds the embedding to the encoder's maps, before the decoder reads them.

    Shapes:
        scales[i]   (B, channels[i], H / 2**i, W / 2**i)   finest first, the bottleneck's latent last
        embedding   (B, 256, 64, 64)
        tissue      (B, 1, G, G)   weights of the squeeze, see `nucseg.models.tissue`; None: all cells alike
        returns     maps of the same shapes
    """

    @abstractmethod
    def forward(self, scales: Sequence[Tensor], embedding: Tensor | None, tissue: Tensor | None = None) -> list[Tensor]:
        """Return the guided maps."""


class NoFusion(Fusion):
    """No guidance: the maps as they are. See `Fusion` for the shapes."""

    def forward(self, scales: Sequence[Tensor], embedding: Tensor | None, tissue: Tensor | None = None) -> list[Tensor]:
        """Return the maps unchanged."""
        return list(scales)


class ChannelGate(nn.Module):
    """Gated squeeze and excitation: weight each channel by the content of the whole image (paper A, section 2.3).

    Squeeze is the mean over the grid, or over its tissue; excitation doubles the channels, a gated linear unit halves
    them again, and a last convolution with a sigmoid computes the weight of each channel.

    Shapes: (B, C, G, G) -> (B, C, G, G); `weights` -> (B, n_weights, 1, 1), by default one per channel
    """

    def __init__(self, channels: int, n_weights: int | None = None) -> None:
        super().__init__()
        self.excite = nn.Sequential(
            nn.Conv2d(channels, 2 * channels, 1),
            ChannelGLU(),
            nn.Conv2d(channels, n_weights or channels, 1),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor, tissue: Tensor | None = None) -> Tensor:
        """Return the weighted channels."""
        return x * self.weights(x, tissue)

    def weights(self, x: Tensor, tissue: Tensor | None = None) -> Tensor:
        """Return the channel weights, between 0 and 1; `tissue` as in `Fusion`."""
        squeezed = x.mean(dim=(2, 3), keepdim=True) if tissue is None else tissue_mean(x, _pooled(tissue, x))
        weights: Tensor = self.excite(squeezed)
        return weights


class BottleneckFusion(Fusion):
    """Common parts of the fusions at the bottleneck: bring the guide to the latent's grid, and add the result to it.

    The papers describe neither step. Here:
    - the embedding is averaged to the grid, and each of its channels is standardised to mean 0 and variance 1: its
      scale depends on the encoder, and most of its energy is the constant mean of its channels (83 % in 12 images,
      MobileSAM), which normalising each cell over its channels would not remove;
    - a 1x1 convolution that starts at zero adds the result to the latent, so that training starts from the network
      without guidance.

    Shapes: see `Fusion`; only the last map changes.
    """

    def __init__(self, latent_channels: int, fused_channels: int) -> None:
        super().__init__()
        self.standardise = nn.BatchNorm2d(EMBEDDING_CHANNELS)
        self._build(latent_channels)
        self.project = _zero_convolution(fused_channels, latent_channels)

    def forward(self, scales: Sequence[Tensor], embedding: Tensor | None, tissue: Tensor | None = None) -> list[Tensor]:
        """Return the maps with the guided latent as the last."""
        *finer, latent = scales
        guide = self.standardise(_to_grid(embedding, latent))
        return [*finer, latent + self.project(self._fuse(latent, guide, tissue))]

    def _build(self, latent_channels: int) -> None:
        """Add the modules of the block, if any."""

    @abstractmethod
    def _fuse(self, latent: Tensor, guide: Tensor, tissue: Tensor | None) -> Tensor:
        """Combine both.

        Shapes: latent (B, C, G, G), guide (B, 256, G, G) -> (B, fused_channels, G, G)
        """


class ConcatFusion(BottleneckFusion):
    """Plain concatenation of both latents, without a block (paper B, table 3: "w/o GFB").

    The following convolution mixes the channels of each cell: (B, C + 256, G, G) -> (B, C, G, G).
    """

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__(channels[-1], channels[-1] + EMBEDDING_CHANNELS)

    def _fuse(self, latent: Tensor, guide: Tensor, tissue: Tensor | None) -> Tensor:
        return torch.cat([latent, guide], dim=1)


class XGatedFusion(BottleneckFusion):
    """X-Gated Fusion Block (paper A, section 2.3; EFB in paper B, section III), as described in the papers' text.

    Both latents are concatenated, (B, C + 256, G, G), and weighted channel by channel; the cells of the result are
    queries, keys and values of an attention block, whose output goes to the decoder. The attention block is residual
    with layer normalisation, as in a transformer.
    """

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__(channels[-1], channels[-1] + EMBEDDING_CHANNELS)

    def _build(self, latent_channels: int) -> None:
        both = latent_channels + EMBEDDING_CHANNELS
        self.gate = ChannelGate(both)
        self.attention = nn.MultiheadAttention(both, N_HEADS, batch_first=True)
        self.norm = nn.LayerNorm(both)

    def _fuse(self, latent: Tensor, guide: Tensor, tissue: Tensor | None) -> Tensor:
        return _attended(self.gate(torch.cat([latent, guide], dim=1), tissue), self.attention, self.norm)


class XGatedReferenceFusion(BottleneckFusion):
    """X-Gated Fusion Block as implemented in the published code: the guide only weights the network's own channels.

    The mean of both latents over the grid, (B, C + 256), determines the weights of the C channels of the network's
    latent, and only these are the tokens of the attention: where in the image the guide responds is lost.
    """

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__(channels[-1], channels[-1])

    def _build(self, latent_channels: int) -> None:
        self.gate = ChannelGate(latent_channels + EMBEDDING_CHANNELS, latent_channels)
        self.attention = nn.MultiheadAttention(latent_channels, N_HEADS, batch_first=True)
        self.norm = nn.LayerNorm(latent_channels)

    def _fuse(self, latent: Tensor, guide: Tensor, tissue: Tensor | None) -> Tensor:
        weights = self.gate.weights(torch.cat([latent, guide], dim=1), tissue)
        return _attended(latent * weights, self.attention, self.norm)


class GatedSkip(nn.Module):
    """Guidance of a level that is too fine for attention over its cells.

    Both maps are concatenated and weighted channel by channel as in the X-GFB; then a gated linear unit mixes the
    channels of each cell, and a convolution that starts at zero adds the result.

    Shapes: scale (B, C, G, G), embedding (B, 256, 64, 64) -> (B, C, G, G)
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        both = channels + EMBEDDING_CHANNELS
        self.standardise = nn.BatchNorm2d(EMBEDDING_CHANNELS)
        self.gate = ChannelGate(both)
        self.mix = nn.Sequential(
            nn.Conv2d(both, 2 * channels, 1, bias=False), nn.BatchNorm2d(2 * channels), ChannelGLU()
        )
        self.project = _zero_convolution(channels, channels)

    def forward(self, scale: Tensor, embedding: Tensor | None, tissue: Tensor | None = None) -> Tensor:
        """Return the guided map."""
        guide = self.standardise(_to_grid(embedding, scale))
        guided: Tensor = scale + self.project(self.mix(self.gate(torch.cat([scale, guide], dim=1), tissue)))
        return guided


class MultiscaleFusion(Fusion):
    """Guidance at every level that is no finer than the embedding, as suggested in paper A, section 4.

    For an image of 256 px these are the grids of 64x64, where no cell of the embedding is averaged, 32x32 and, with
    the X-GFB, the bottleneck's 16x16. The decoder's skip connections carry the guided maps; the encoder's own path
    does not change.

    Shapes: see `Fusion`; maps 2 to 4 change.
    """

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self.skips = nn.ModuleList(GatedSkip(n) for n in channels[FINEST_GUIDED:-1])
        self.bottleneck = XGatedFusion(channels)

    def forward(self, scales: Sequence[Tensor], embedding: Tensor | None, tissue: Tensor | None = None) -> list[Tensor]:
        """Return the maps with guidance in the coarser three."""
        guided = self.bottleneck(scales, embedding, tissue)
        middle = zip(self.skips, scales[FINEST_GUIDED:-1], strict=True)
        return [*scales[:FINEST_GUIDED], *(skip(scale, embedding, tissue) for skip, scale in middle), guided[-1]]


def _attended(cells: Tensor, attention: nn.MultiheadAttention, norm: nn.LayerNorm) -> Tensor:
    """Self-attention over the cells of (B, C, G, G), residual and normalised."""
    tokens = cells.flatten(2).mT  # (B, G * G, C)
    attended, _ = attention(tokens, tokens, tokens, need_weights=False)
    mixed: Tensor = norm(tokens + attended)
    return mixed.mT.reshape(cells.shape)


def _zero_convolution(channels_in: int, channels_out: int) -> nn.Conv2d:
    """A 1x1 convolution with zero weights."""
    convolution = nn.Conv2d(channels_in, channels_out, 1, bias=False)
    nn.init.zeros_(convolution.weight)
    return convolution


def _to_grid(embedding: Tensor | None, scale: Tensor) -> Tensor:
    """Average the embedding to the grid of a map: (B, 256, 64, 64) -> (B, 256, G, G), float32."""
    if embedding is None:
        raise ConfigError("This fusion needs an embedding and got none.")
    return _pooled(embedding.float(), scale)


def _pooled(x: Tensor, like: Tensor) -> Tensor:
    """Average (B, C, H, W) to the grid of another map."""
    height, width = like.shape[-2:]
    return F.adaptive_avg_pool2d(x, (height, width))


FUSIONS: dict[str, Callable[[Sequence[int]], Fusion]] = {
    "none": lambda channels: NoFusion(),
    "concat": ConcatFusion,
    "xgfb": XGatedFusion,
    "xgfb_reference": XGatedReferenceFusion,
    "multiscale": MultiscaleFusion,
}
"""The fusions by name, each built from the channels of the encoder's levels."""


def build_fusion(name: str, channels: Sequence[int]) -> Fusion:
    """Return the fusion with this name for an encoder with these channels; ConfigError lists the known names."""
    if name not in FUSIONS:
        raise ConfigError(f"Fusion {name!r} is not known. {known(name, FUSIONS)}")
    return FUSIONS[name](channels)
