"""eU-Net3+: U-Net3+ (Huang et al. 2020) with gated linear units (paper A, section 2.1)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nucseg.models.base import N_CLASSES, ModelConfig, SegmentationModel
from nucseg.models.blocks import N_LEVELS, ConvBlock, Encoder, SideHeads
from nucseg.models.fusion import build_fusion


class FullScaleNode(nn.Module):
    """One decoder node of U-Net3+: every scale, brought to one grid, squeezed, concatenated, fused.

    Finer maps are max-pooled, coarser ones enlarged bilinearly. Each is squeezed to `width` channels, so that no
    scale outvotes another because it has more channels (Huang et al. 2020, section 2.1).

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


class EUNet3Plus(SegmentationModel):
    """U-Net3+ with full-scale skip connections and, if not told otherwise, gated linear units as activation.

    Five encoder levels, the guide at the bottleneck, four full-scale decoder nodes, a head on the finest node and
    with deep supervision on every other and on the bottleneck. See `SegmentationModel` for the shapes.
    """

    def __init__(self, config: ModelConfig, *, activation: str = "glu") -> None:
        super().__init__(config)
        self.encoder = Encoder(config.width, activation=activation)
        channels = self.encoder.channels
        self.dropout = nn.Dropout(config.dropout)

        decoded = (N_LEVELS * config.width,) * (N_LEVELS - 1) + channels[-1:]
        self.nodes = nn.ModuleList(
            FullScaleNode(level, channels[: level + 1] + decoded[level + 1 :], config.width, activation=activation)
            for level in range(N_LEVELS - 1)
        )
        self.heads = SideHeads(decoded if config.deep_supervision else decoded[:1], N_CLASSES)
        # last, so that one seed gives a guided and an unguided network the same weights to compare from
        self.fusion = build_fusion(config.fusion, channels)

    def _side_logits(self, image: Tensor, embedding: Tensor | None) -> list[Tensor]:
        scales: list[Tensor] = self.fusion(self.encoder(image), embedding)
        scales[-1] = self.dropout(scales[-1])
        for level in reversed(range(N_LEVELS - 1)):
            # from the bottom up the decoder's maps take the places of the encoder's, which no finer node reads
            scales[level] = self.nodes[level](scales)
        logits: list[Tensor] = self.heads(scales)
        return logits
