"""DDU-Net (Wang et al. 2022): a U-Net with a second, small decoder for small objects."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from nucseg.models.base import SegmentationModel
from nucseg.models.blocks import N_LEVELS, ConvBlock, find_activation
from nucseg.models.unet import UpStep

DILATIONS = (1, 2, 4)
"""Dilations of the cascade: its receptive field is 15x15, nearly the bottleneck's whole grid for an image of 256 px."""

SQUEEZE = 4
"""Each branch has a quarter of the channels, so that the four branches together have as many as the input."""

SMALL_LEVEL = 2
"""Level at which the small decoder begins: cells of 4 px, so that a nucleus of 16 px still covers four per side."""

REDUCTION, MIN_HIDDEN, SPATIAL_KERNEL = 16, 4, 7
"""Woo et al. 2018 reduce the channels by 16 and use a kernel of 7x7; a narrow network keeps four hidden channels."""


class CBAM(nn.Module):
    """Convolutional block attention module (Woo et al. 2018): weight the channels, then the cells.

    A shared perceptron computes the weights of channels from their mean and maximum over the grid; a convolution
    computes the weights of cells from the mean and maximum of their channels.

    Shapes: (B, C, G, G) -> (B, C, G, G)
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(channels // REDUCTION, MIN_HIDDEN)
        self.channel = nn.Sequential(
            nn.Conv2d(channels, hidden, 1, bias=False), nn.ReLU(), nn.Conv2d(hidden, channels, 1, bias=False)
        )
        self.spatial = nn.Conv2d(2, 1, SPATIAL_KERNEL, padding=SPATIAL_KERNEL // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the weighted map."""
        mean, peak = x.mean(dim=(2, 3), keepdim=True), x.amax(dim=(2, 3), keepdim=True)
        x = x * (self.channel(mean) + self.channel(peak)).sigmoid()
        pooled = torch.cat([x.mean(dim=1, keepdim=True), x.amax(dim=1, keepdim=True)], dim=1)
        weighted: Tensor = x * self.spatial(pooled).sigmoid()
        return weighted


class DilatedAttention(nn.Module):
    """Dilated convolution attention module, DCAM (Wang et al. 2022).

    Each dilated convolution of a cascade is a branch, and the mean over the grid is another; every branch has its own
    `CBAM`. `DDUNet` says which parts are from the paper.

    Shapes: (B, C, G, G) -> (B, C, G, G), C a multiple of 4
    """

    def __init__(self, channels: int, *, activation: str) -> None:
        super().__init__()
        kind, narrow = find_activation(activation), channels // SQUEEZE
        self.cascade = nn.ModuleList(
            ConvBlock(narrow if i else channels, narrow, activation=activation, dilation=dilation)
            for i, dilation in enumerate(DILATIONS)
        )
        # without normalisation: a batch of one image would have a single value and no variance
        self.globe = nn.Sequential(nn.Conv2d(channels, narrow * kind.channels_in, 1), kind.make())
        self.attend = nn.ModuleList(CBAM(narrow) for _ in range(SQUEEZE))
        self.project = nn.Sequential(nn.Conv2d(channels, channels, 1, bias=False), nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Return the map with its context added."""
        link, branches = x, [self.globe(x.mean(dim=(2, 3), keepdim=True)).expand(-1, -1, *x.shape[2:])]
        for convolve in self.cascade:
            link = convolve(link)
            branches.append(link)
        attended = [attend(branch) for attend, branch in zip(self.attend, branches, strict=True)]
        aware: Tensor = x + self.project(torch.cat(attended, dim=1))
        return aware


class DDUNet(SegmentationModel):
    """DDU-Net: a main decoder from the bottleneck, a second small decoder, and a DCAM between the encoder and each.

    From the paper: U-Net as the base; a small decoder for more detailed features; between encoder and decoders a DCAM
    of cascaded dilated convolutions and global average pooling, with a CBAM in each of these parallel branches.

    Our choices, where its abstract gives no details:
    - the encoder is the one that all networks share, so that comparisons concern decoders and guidance;
    - the small decoder begins at the third level and makes two steps, whose cells are fine enough for small nuclei;
    - each decoder has a DCAM at its input: dilations 1, 2, 4, branches with a quarter of the channels, joined by a
      1x1 convolution and added to the input;
    - the two finest maps are concatenated and fused by one convolution before the head;
    - with deep supervision the fused map, the main decoder's other levels and its input have heads.

    Guidance enters before the DCAMs. Mahbod et al. 2022 use the same name for another network for nuclei, whose second
    decoder predicts distances. Paper A cites that of Wang et al.

    See `SegmentationModel` for the shapes.
    """

    source: ClassVar[str] = "Wang et al. 2022, doi 10.1109/TGRS.2022.3197546"

    def _build_decoder(self, channels: Sequence[int], activation: str) -> Sequence[int]:
        def up(level: int) -> UpStep:
            return UpStep(channels[level + 1], channels[level], activation=activation)

        self.surround = DilatedAttention(channels[-1], activation=activation)
        self.nodes = nn.ModuleList(up(level) for level in range(N_LEVELS - 1))
        self.small_surround = DilatedAttention(channels[SMALL_LEVEL], activation=activation)
        self.small_nodes = nn.ModuleList(up(level) for level in range(SMALL_LEVEL))
        self.merge = ConvBlock(2 * channels[0], channels[0], activation=activation)
        return channels

    def _decode(self, scales: list[Tensor]) -> list[Tensor]:
        maps = [*scales[:-1], self.surround(scales[-1])]
        for level in reversed(range(N_LEVELS - 1)):
            maps[level] = self.nodes[level](maps[level + 1], maps[level])
        small = self.small_surround(scales[SMALL_LEVEL])
        for level in reversed(range(SMALL_LEVEL)):
            small = self.small_nodes[level](small, scales[level])
        maps[0] = self.merge(torch.cat([maps[0], small], dim=1))
        return maps
