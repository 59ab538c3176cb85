"""The building blocks that the networks of the U-Net family share."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nucseg.errors import ConfigError, known

N_LEVELS = 5
"""Levels of every encoder, including the bottleneck."""

MATRIX_SCALE = 4
"""From this scale on, `UpsampledConv2d` is faster as matrix products (measured at width 8 with two threads)."""


class ChannelGLU(nn.Module):
    """Gated linear unit, GLU(x) = sigmoid(W_a x + b_a) * (W_l x + b_l) (paper A, Eq. 1).

    W_l and W_a are the two halves of the preceding convolution and normalisation, so it halves the channels:
    (B, 2C, H, W) -> (B, C, H, W).
    """

    def forward(self, x: Tensor) -> Tensor:
        """Gate the first half of the channels by the second."""
        # F.glu is equivalent, but a CPU is slow on strided channels: copying the gate into contiguous memory first
        # takes a half to a quarter of the time (widths 8 and 16, float32 and bfloat16)
        linear, gate = x.chunk(2, dim=1)
        return linear * gate.contiguous(memory_format=torch.channels_last).sigmoid()


@dataclass(frozen=True)
class Activation:
    """An activation, and the number of its input channels per output channel."""

    make: Callable[[], nn.Module]
    channels_in: int = 1


ACTIVATIONS = {
    "relu": Activation(nn.ReLU),
    "leaky_relu": Activation(nn.LeakyReLU),
    "swish": Activation(nn.SiLU),
    "glu": Activation(ChannelGLU, channels_in=2),
}
"""The activations that paper B compares (its table 2), by name."""


def find_activation(name: str) -> Activation:
    """Return the activation with this name; ConfigError lists the known ones if there is none."""
    if name not in ACTIVATIONS:
        raise ConfigError(f"Activation {name!r} is not known. {known(name, ACTIVATIONS)}")
    return ACTIVATIONS[name]


class ConvBlock(nn.Sequential):
    """Convolution 3x3, batch normalisation (its shift is the bias), activation.

    Shapes: (B, in_channels, H, W) -> (B, out_channels, scale * H, scale * W); with a scale above 1 the convolution
    reads the bilinearly enlarged map. A dilation above 1 is only supported with scale 1.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, activation: str, scale: int = 1, dilation: int = 1
    ) -> None:
        kind = find_activation(activation)
        inner = out_channels * kind.channels_in
        conv = (
            nn.Conv2d(in_channels, inner, 3, padding=dilation, dilation=dilation, bias=False)
            if scale == 1
            else UpsampledConv2d(in_channels, inner, scale=scale)
        )
        super().__init__(conv, nn.BatchNorm2d(inner), kind.make())


class DoubleConv(nn.Sequential):
    """Two convolution blocks: one level of a U-Net encoder. (B, in_channels, H, W) -> (B, out_channels, H, W)."""

    def __init__(self, in_channels: int, out_channels: int, *, activation: str) -> None:
        super().__init__(
            ConvBlock(in_channels, out_channels, activation=activation),
            ConvBlock(out_channels, out_channels, activation=activation),
        )


class Encoder(nn.Module):
    """The contracting half of a U-Net: five levels, each half the size and twice the channels of the one above.

    Shapes:
        image       (B, 3, H, W)
        returns[i]  (B, channels[i], H / 2**i, W / 2**i), channels[i] = width * 2**i; the last is the bottleneck
    """

    def __init__(self, width: int, *, activation: str) -> None:
        super().__init__()
        self.channels = tuple(width * 2**level for level in range(N_LEVELS))
        before = (3, *self.channels[:-1])
        self.levels = nn.ModuleList(
            DoubleConv(inner, outer, activation=activation) for inner, outer in zip(before, self.channels, strict=True)
        )

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return the maps of all levels, finest first."""
        scales = [self.levels[0](image)]
        for level in self.levels[1:]:
            scales.append(level(F.max_pool2d(scales[-1], 2)))
        return scales


class SideHeads(nn.Module):
    """A 3x3 convolution to class logits from each scale, brought to the image's size (Huang et al. 2020, section 2.2).

    Shapes:
        scales[i]   (B, channels[i], H / 2**i, W / 2**i)   finest first; additional ones are ignored
        returns[i]  (B, n_classes, H, W)
    """

    def __init__(self, channels: Sequence[int], n_classes: int) -> None:
        super().__init__()
        self.n_classes = n_classes
        self.convs = nn.ModuleList()
        self.add(channels)

    def add(self, channels: Sequence[int]) -> None:
        """Add heads for the next coarser scales."""
        self.convs.extend(nn.Conv2d(n, self.n_classes, 3, padding=1) for n in channels)

    def forward(self, scales: Sequence[Tensor]) -> list[Tensor]:
        """Return the logits of each scale, finest first."""
        size = scales[0].shape[-2:]
        coarse = [conv(scale) for conv, scale in zip(self.convs, scales, strict=False)]
        return [coarse[0], *(F.interpolate(side, size, mode="bilinear") for side in coarse[1:])]


class UpsampledConv2d(nn.Conv2d):
    """A 3x3 convolution of a bilinearly enlarged map; large scales are computed without the enlarged map.

    Enlarging acts on rows and columns, each tap of the convolution on channels, so they commute: mix the channels for
    each of the nine taps on the small grid, then enlarge, shift and add by two matrix products. The result is the
    same up to rounding. For the bottleneck of width 8 at 256 px this takes a tenth of the time, and memory only for
    the output instead of for 128 maps of the image's size.

    Shapes: (B, in_channels, H, W) -> (B, out_channels, scale * H, scale * W)
    """

    def __init__(self, in_channels: int, out_channels: int, *, scale: int) -> None:
        super().__init__(in_channels, out_channels, 3, padding=1, bias=False)
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        """Enlarge and convolve."""
        if self.scale < MATRIX_SCALE:
            return super().forward(F.interpolate(x, scale_factor=self.scale, mode="bilinear"))
        (n_images, _, height, width), out = x.shape, self.out_channels
        tall, wide = height * self.scale, width * self.scale

        mixers = self.weight.permute(2, 3, 0, 1).reshape(9 * out, self.in_channels, 1, 1)
        taps = F.conv2d(x, mixers).movedim(1, -1).reshape(n_images, height, width, 3, 3, out)
        taps = taps.permute(0, 3, 1, 5, 4, 2)  # (B, tap row, H, C, tap column, W)
        rows = taps.reshape(-1, 3 * width) @ _shifted_enlargement(width, self.scale, taps).mT
        rows = rows.view(n_images, 3 * height, out * wide)
        grid = _shifted_enlargement(height, self.scale, taps) @ rows
        grid = grid.view(n_images, tall, out, wide).movedim(2, 1)
        return grid.contiguous(memory_format=torch.channels_last)


def _shifted_enlargement(n: int, scale: int, like: Tensor) -> Tensor:
    """Return the matrix (scale * n, 3 * n) that enlarges three lines, shifts them by -1, 0, 1 and adds them up."""
    enlarge = F.interpolate(torch.eye(n, device=like.device)[None], scale_factor=scale, mode="linear")[0].mT
    shifted = F.pad(enlarge, (0, 0, 1, 1)).unfold(0, 3, 1)  # (scale * n, n, 3)
    return shifted.movedim(-1, 1).reshape(scale * n, 3 * n).to(like.dtype)
