"""U-Net (Ronneberger et al. 2015): every decoder level reads the level below and the encoder's map of its own level."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from nucseg.models.base import SegmentationModel
from nucseg.models.blocks import N_LEVELS, DoubleConv


class UpStep(nn.Module):
    """One step of a U-Net decoder: up-convolution, concatenation with the encoder's map, two convolutions.

    The up-convolution is a transposed 2x2 of stride 2 that halves the channels, to as many as the skip has.

    Shapes: below (B, in_channels, H, W), skip (B, out_channels, 2H, 2W) -> (B, out_channels, 2H, 2W)
    """

    def __init__(self, in_channels: int, out_channels: int, *, activation: str) -> None:
        super().__init__()
        self.enlarge = nn.ConvTranspose2d(in_channels, out_channels, 2, stride=2)
        self.fuse = DoubleConv(2 * out_channels, out_channels, activation=activation)

    def forward(self, below: Tensor, skip: Tensor) -> Tensor:
        """Return the map of this level."""
        node: Tensor = self.fuse(torch.cat([skip, self.enlarge(below)], dim=1))
        return node


class UNet(SegmentationModel):
    """U-Net: four steps up, each with the encoder's map of its level. See `SegmentationModel` for the shapes.

    Differences from the paper: convolutions are padded, so that sizes are kept and no skip is cropped; each is followed
    by batch normalisation, as in the other networks; the last convolution is 3x3 instead of 1x1, as in the heads of all
    networks; the only dropout is at the bottleneck.

    The paper has no deep supervision. With this option all decoder levels and the bottleneck predict, the same five
    maps as in U-Net3+, so that the option means the same for every network.
    """

    source: ClassVar[str] = "Ronneberger et al. 2015, doi 10.1007/978-3-319-24574-4_28"

    def _build_decoder(self, channels: Sequence[int], activation: str) -> Sequence[int]:
        self.nodes = nn.ModuleList(
            UpStep(channels[level + 1], channels[level], activation=activation) for level in range(N_LEVELS - 1)
        )
        return channels

    def _decode(self, scales: list[Tensor]) -> list[Tensor]:
        maps = list(scales)
        for level in reversed(range(N_LEVELS - 1)):
            maps[level] = self.nodes[level](maps[level + 1], maps[level])
        return maps
