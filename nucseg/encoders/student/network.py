"""The student network: convolutions on grids of 64 and 32 cells, attention on 16, and back to 64.

Our own design, of parts that run fast on a CPU: residual blocks of two 3x3 convolutions (He et al. 2016, with batch
normalisation, which is folded into the weights after training), transformer blocks (pre-norm, Vaswani et al. 2017)
where the grid is coarse enough for attention over all of it, and a U-shaped path back (Ronneberger et al. 2015). A
third of the variance of a SAM embedding depends only on the position in the grid, in patterns too fine for the coarse
grid: the head therefore reads learned position maps.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from nucseg.encoders.architectures import EMBEDDING_SHAPE
from nucseg.encoders.student.sizes import GRID, StudentShape

STEM = 32
"""Channels at 128 cells."""

HEAD_CHANNELS = 32
"""Channels of an attention head."""

MLP_RATIO = 3
"""Hidden channels of a transformer block's MLP per channel of its tokens."""

POSITION_SCALE = 0.1
"""Standard deviation of the initial position maps."""


class StudentNetwork(nn.Module):
    """Normalised images (B, 3, 256, 256), zero in the padding -> embeddings (B, 256, 64, 64)."""

    def __init__(self, shape: StudentShape, *, folded: bool = False) -> None:
        """Draw the weights from torch's generator.

        Args:
            shape: the hyperparameters.
            folded: without batch normalisation, as stored in files; such a network is not trained.
        """
        super().__init__()
        self.shape = shape
        fine, middle, coarse = (shape.channels * factor for factor in (1, 2, 4))
        self.stem = nn.Sequential(
            ConvNorm(3, STEM, stride=2, folded=folded), nn.ReLU(), ConvNorm(STEM, fine, stride=2, folded=folded)
        )
        self.fine = nn.Sequential(*(Residual(fine, folded) for _ in range(shape.fine_blocks)))
        self.to_middle = ConvNorm(fine, middle, stride=2, folded=folded)
        self.middle = Residual(middle, folded)
        self.to_coarse = ConvNorm(middle, coarse, stride=2, folded=folded)
        self.coarse_place = nn.Parameter(POSITION_SCALE * torch.randn(1, (GRID // 4) ** 2, coarse))
        self.coarse = nn.Sequential(*(Transformer(coarse) for _ in range(shape.coarse_blocks)))
        self.from_coarse = nn.Conv2d(coarse, middle, 1)
        self.middle_again = Residual(middle, folded)
        self.from_middle = nn.Conv2d(middle, fine, 1)
        self.fine_again = nn.Sequential(*(Residual(fine, folded) for _ in range(shape.fine_blocks)))
        self.place = nn.Parameter(POSITION_SCALE * torch.randn(1, shape.positions, GRID, GRID))
        n_out = EMBEDDING_SHAPE[0]
        self.head = nn.Conv2d(2 * fine + shape.positions, n_out, 1)
        self.last = nn.Conv2d(n_out + shape.positions, n_out, 1)

    def forward(self, images: Tensor) -> Tensor:
        """See the class."""
        fine = self.fine(F.relu(self.stem(images)))
        middle = self.middle(F.relu(self.to_middle(fine)))
        coarse = F.relu(self.to_coarse(middle))
        tokens = self.coarse(coarse.flatten(2).mT + self.coarse_place)
        coarse = tokens.mT.reshape(coarse.shape)
        middle = self.middle_again(middle + _twice(self.from_coarse(coarse)))
        again = self.fine_again(fine + _twice(self.from_middle(middle)))
        place = self.place.expand(len(images), -1, -1, -1).to(again.dtype)
        hidden = F.relu(self.head(torch.cat([fine, again, place], dim=1)))
        embedding: Tensor = self.last(torch.cat([hidden, place], dim=1))
        return embedding

    @torch.no_grad()
    def initialise_from_pattern(self, pattern: Tensor) -> None:
        """Make the network return the best approximation of a pattern (256, 64, 64) by its maps, for every image."""
        channels, sizes, places = torch.linalg.svd(pattern.flatten(1), full_matrices=False)
        n_maps, n_cells = self.shape.positions, GRID**2
        self.place.copy_((places[:n_maps] * n_cells**0.5).reshape(self.place.shape))
        for parameter in self.last.parameters():
            parameter.zero_()
        self.last.weight[:, -n_maps:] = (channels * sizes / n_cells**0.5)[:, :n_maps, None, None]

    @torch.no_grad()
    def folded(self, scale: float = 1.0, offset: Tensor | None = None) -> StudentNetwork:
        """A network without batch normalisation that returns scale * (output in evaluation mode) + offset (256,)."""
        network = StudentNetwork(self.shape, folded=True)
        state = {key: value for key, value in self.state_dict().items() if ".norm." not in key}
        for name, part in self.named_modules():
            if isinstance(part, ConvNorm) and isinstance(part.norm, nn.BatchNorm2d):
                fused = fuse_conv_bn_eval(part.conv.eval(), part.norm.eval())
                state |= {f"{name}.conv.{key}": value for key, value in fused.state_dict().items()}
        network.load_state_dict(state)
        for parameter in network.last.parameters():
            parameter.mul_(scale)
        if offset is not None and network.last.bias is not None:
            network.last.bias.add_(offset)
        return network.eval()


class ConvNorm(nn.Module):
    """A 3x3 convolution and its batch normalisation, which may be folded into it."""

    def __init__(self, n_in: int, n_out: int, *, stride: int = 1, folded: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv2d(n_in, n_out, 3, stride=stride, padding=1, bias=folded)
        self.norm: nn.Module = nn.Identity() if folded else nn.BatchNorm2d(n_out)

    def forward(self, x: Tensor) -> Tensor:
        """(B, n_in, H, W) -> (B, n_out, H / stride, W / stride)."""
        normed: Tensor = self.norm(self.conv(x))
        return normed


class Residual(nn.Module):
    """Two convolutions with a shortcut."""

    def __init__(self, channels: int, folded: bool) -> None:
        super().__init__()
        self.first = ConvNorm(channels, channels, folded=folded)
        self.second = ConvNorm(channels, channels, folded=folded)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        return F.relu(x + self.second(F.relu(self.first(x))))


class Transformer(nn.Module):
    """A transformer block."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.n_heads = channels // HEAD_CHANNELS
        self.before_attention, self.before_mlp = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.qkv, self.out = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)
        self.mlp = nn.Sequential(
            nn.Linear(channels, MLP_RATIO * channels), nn.GELU(), nn.Linear(MLP_RATIO * channels, channels)
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        b, t, c = tokens.shape
        split = self.qkv(self.before_attention(tokens)).reshape(b, t, 3, self.n_heads, c // self.n_heads)
        q, k, v = split.permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, t, c)
        tokens = tokens + self.out(attended)
        result: Tensor = tokens + self.mlp(self.before_mlp(tokens))
        return result


def _twice(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="bilinear")
