"""DDU-Net (Wang et al. 2022): a U-Net with a second, small decoder for what is small."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from nucseg.models.base import SegmentationModel
from nucseg.models.blocks import N_LEVELS, ConvBlock, find_activation
from nucseg.models.unet import UpStep

DILATIONS = (1, 2, 4)
"""Dilations of the cascade: a cell at its end sees 15x15, nearly the bottleneck's whole grid for an image of 256 px."""

SQUEEZE = 4
"""Each branch has a quarter of the channels, so that the four together have as many as went in."""

SMALL_LEVEL = 2
"""Where the small decoder begins: cells of 4 px, so that a nucleus of 16 px still covers four a side."""

REDUCTION, LEAST_HIDDEN, SPATIAL_KERNEL = 16, 4, 7
"""Woo et al. 2018 reduce the channels by 16 and look at 7x7 cells; a narrow network keeps four hidden channels."""


class CBAM(nn.Module):
    """Convolutional block attention module (Woo et al. 2018): weigh the channels, then the cells.

    Channels are weighted by what a shared perceptron says of their mean and of their maximum over the grid, cells
    by a convolution over the mean and the maximum of their channels.

    Shapes: (B, C, G, G) -> (B, C, G, G)
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(channels // REDUCTION, LEAST_HIDDEN)
        self.channel = nn.Sequential(
            nn.Conv2d(channels, hidden, 1, bias=False), nn.ReLU(), nn.Conv2d(hidden, channels, 1, bias=False)
        )
        self.spatial = nn.Conv2d(2, 1, SPATIAL_KERNEL, padding=SPATIAL_KERNEL // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the weighted map."""
        mean, peak = x.mean(dim=(2, 3), keepdim=True), x.amax(dim=(2, 3), keepdim=True)
        x = x * (self.channel(mean) + self.channel(peak)).sigmoid()
        seen = torch.cat([x.mean(dim=1, keepdim=True), x.amax(dim=1, keepdim=True)], dim=1)
        weighted: Tensor = x * self.spatial(seen).sigmoid()
        return weighted


class DilatedAttention(nn.Module):
    """Dilated convolution attention module, DCAM (Wang et al. 2022).

    A cascade of dilated convolutions, each link of which is a branch, and a branch of the mean over the grid; every
    branch goes through a `CBAM` of its own. See `DDUNet` for what of this is the paper's.

    Shapes: (B, C, G, G) -> (B, C, G, G), C a multiple of 4
    """

    def __init__(self, channels: int, *, activation: str) -> None:
        super().__init__()
        kind, narrow = find_activation(activation), channels // SQUEEZE
        self.cascade = nn.ModuleList(
            ConvBlock(narrow if i else channels, narrow, activation=activation, dilation=dilation)
            for i, dilation in enumerate(DILATIONS)
        )
        # without normalisation: one image has one mean, and no variance
        self.globe = nn.Sequential(nn.Conv2d(channels, narrow * kind.channels_in, 1), kind.make())
        self.attend = nn.ModuleList(CBAM(narrow) for _ in range(SQUEEZE))
        self.project = nn.Sequential(nn.Conv2d(channels, channels, 1, bias=False), nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Return the map with its surroundings added."""
        link, branches = x, [self.globe(x.mean(dim=(2, 3), keepdim=True)).expand(-1, -1, *x.shape[2:])]
        for convolve in self.cascade:
            link = convolve(link)
            branches.append(link)
        attended = [attend(branch) for attend, branch in zip(self.attend, branches, strict=True)]
        aware: Tensor = x + self.project(torch.cat(attended, dim=1))
        return aware


class DDUNet(SegmentationModel):
    """DDU-Net: a main decoder from the bottleneck, a small one beside it, and a DCAM between the encoder and both.

    From the paper: U-Net as the base; a small decoder added for more detailed features; between encoder and decoders a
    DCAM of cascaded dilated convolutions and global average pooling, with a CBAM in each of these parallel
    branches.

    Our reading, where its abstract is silent:
    - the encoder is the one that all networks share, so that what is compared are decoders and guides;
    - the small decoder begins at the third level and makes two steps, whose cells are fine enough for small nuclei;
    - each decoder has a DCAM at its entrance: dilations 1, 2, 4, branches of a quarter of the channels, joined by a
      1x1 convolution and added to what went in;
    - the two finest maps are concatenated and fused by one convolution before the head;
    - with deep supervision the fused map, the main decoder's other levels and its entrance predict.

    A guide enters before the DCAMs. Mahbod et al. 2022 call another network for nuclei by the same name: its second
    decoder predicts distances. Paper A cites the one of Wang et al.

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
