"""Where the embedding of the foundation model enters the network."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nucseg.errors import ConfigError
from nucseg.models.base import EMBEDDING_CHANNELS
from nucseg.models.blocks import ChannelGLU

N_HEADS = 8
"""Attention heads; the papers give no number. It divides 16 * width + 256 for every width."""


class Fusion(nn.Module, ABC):
    """A way to bring the embedding into the maps of the encoder, before the decoder reads them.

    Shapes:
        scales[i]   (B, channels[i], H / 2**i, W / 2**i)   finest first, the last is the bottleneck's latent
        embedding   (B, 256, 64, 64)
        returns     maps of the same shapes
    """

    @abstractmethod
    def forward(self, scales: Sequence[Tensor], embedding: Tensor | None) -> list[Tensor]:
        """Return the guided maps."""


class NoFusion(Fusion):
    """No guidance: the maps as they are. See `Fusion` for the shapes."""

    def forward(self, scales: Sequence[Tensor], embedding: Tensor | None) -> list[Tensor]:
        """Return the maps unchanged."""
        return list(scales)


class ChannelGate(nn.Module):
    """Gated squeeze and excitation: weigh each channel by what the whole image says (paper A, section 2.3).

    Squeeze is the mean over the grid; excitation expands the channels twofold, a gated linear unit halves them
    again, and a last convolution with a sigmoid gives each channel its weight.

    Shapes: (B, C, G, G) -> (B, C, G, G)
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.excite = nn.Sequential(
            nn.Conv2d(channels, 2 * channels, 1), ChannelGLU(), nn.Conv2d(channels, channels, 1), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the weighted channels."""
        weighted: Tensor = x * self.excite(x.mean(dim=(2, 3), keepdim=True))
        return weighted


class XGatedFusion(Fusion):
    """X-Gated Fusion Block (paper A, section 2.3; EFB in paper B, section III).

    Both latents are concatenated on the bottleneck's grid and weighted channel by channel; the cells of the result
    are queries, keys and values of an attention block; what comes out goes on to the decoder.

    The papers leave open how scales are matched and how the result returns to the latent's channels. Here:
    - the embedding is averaged to the grid and each of its channels is brought to mean 0 and variance 1: its
      scale depends on the encoder, and most of its energy is the constant mean of its channels (83 % in 12 images,
      MobileSAM), which normalising each cell over its channels would leave in place;
    - the attention block is residual with layer normalisation, as in a transformer;
    - a 1x1 convolution that starts at zero adds its output to the latent, so that training starts
      from the network without guidance and the guide earns its influence.

    Shapes: see `Fusion`; only the last map changes.
    """

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        both = channels[-1] + EMBEDDING_CHANNELS
        self.standardise = nn.BatchNorm2d(EMBEDDING_CHANNELS)
        self.gate = ChannelGate(both)
        self.attention = nn.MultiheadAttention(both, N_HEADS, batch_first=True)
        self.norm = nn.LayerNorm(both)
        self.project = nn.Conv2d(both, channels[-1], 1, bias=False)
        nn.init.zeros_(self.project.weight)

    def forward(self, scales: Sequence[Tensor], embedding: Tensor | None) -> list[Tensor]:
        """Return the maps with the guided latent as the last."""
        *finer, latent = scales
        guide = _to_grid(embedding, latent)
        gated = self.gate(torch.cat([latent, self.standardise(guide)], dim=1))
        tokens = gated.flatten(2).mT  # (B, G * G, C)
        attended, _ = self.attention(tokens, tokens, tokens, need_weights=False)
        mixed = self.norm(tokens + attended).mT.unflatten(2, latent.shape[-2:])
        return [*finer, latent + self.project(mixed)]


def _to_grid(embedding: Tensor | None, latent: Tensor) -> Tensor:
    """Average the embedding to the latent's grid: (B, 256, 64, 64) -> (B, 256, G, G), float32."""
    if embedding is None:
        raise ConfigError("this fusion brings in an embedding and got none.")
    height, width = latent.shape[-2:]
    return F.adaptive_avg_pool2d(embedding.float(), (height, width))


FUSIONS: dict[str, Callable[[Sequence[int]], Fusion]] = {
    "none": lambda channels: NoFusion(),
    "xgfb": XGatedFusion,
}
"""The fusions by name, each made from the channels of the encoder's levels."""


def build_fusion(name: str, channels: Sequence[int]) -> Fusion:
    """Return the fusion of this name for an encoder with these channels; ConfigError that lists the known ones."""
    if name not in FUSIONS:
        raise ConfigError(f"no fusion is called {name!r}. Known: {', '.join(FUSIONS)}.")
    return FUSIONS[name](channels)
