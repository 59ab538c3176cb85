"""U-Net3+ (Huang et al. 2020): every decoder node reads all scales."""

from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nucseg.models.base import SegmentationModel
from nucseg.models.blocks import N_LEVELS, ConvBlock


class FullScaleNode(nn.Module):
    """One decoder node of U-Net3+: all scales resized to one grid, squeezed, concatenated and fused.

    Finer maps are max-pooled, coarser ones enlarged bilinearly. Each is squeezed to `width` channels, so that no
    scale dominates by its number of channels (Huang et al. 2020, section 2.1).

    Shapes:
        scales[i]   (B, channels[i], H / 2**i, W / 2**i)   finest first: the encoder's down to this node's level,
                                                           below it the decoder's and the bottleneck
        returns     (B, 5 * width, H / 2**level, W / 2**level)
    """

    def __init__(self, level: int, channels: Sequence[int], width: int, *, activation: str) -> None:
        super().__init__()
        self.level = level
        self.squeeze = nn.ModuleList(
            ConvBlock(n, width, activation=activation, scale=2 ** max(i - level, 0)) for i, n in enumerate(channels)
        )
        joined = width * len(channels)
        self.fuse = ConvBlock(joined, joined, activation=activation)

    def forward(self, scales: Sequence[Tensor]) -> Tensor:
        """Return the node's map."""
        squeezed = []
        for i, (scale, squeeze) in enumerate(zip(scales, self.squeeze, strict=True)):
            pooled = F.max_pool2d(scale, 2 ** (self.level - i)) if i < self.level else scale
            squeezed.append(squeeze(pooled))
        node: Tensor = self.fuse(torch.cat(squeezed, dim=1))
        return node


class UNet3Plus(SegmentationModel):
    """U-Net3+: four decoder nodes with full-scale skip connections; predictions from all of them and the bottleneck.

    Deep supervision and the classification-guided module are options of `ModelConfig`. See `SegmentationModel` for
    the shapes.
    """

    source: ClassVar[str] = "Huang et al. 2020, doi 10.1109/ICASSP40776.2020.9053405"

    def _build_decoder(self, channels: Sequence[int], activation: str) -> Sequence[int]:
        width = self.config.width
        decoded = (N_LEVELS * width,) * (N_LEVELS - 1) + tuple(channels[-1:])
        self.nodes = nn.ModuleList(
            FullScaleNode(level, (*channels[: level + 1], *decoded[level + 1 :]), width, activation=activation)
            for level in range(N_LEVELS - 1)
        )
        return decoded

    def _decode(self, scales: list[Tensor]) -> list[Tensor]:
        maps = list(scales)
        for level in reversed(range(N_LEVELS - 1)):
            # from coarse to fine, decoder maps replace encoder maps of their level, which no finer node reads
            maps[level] = self.nodes[level](maps)
        return maps
