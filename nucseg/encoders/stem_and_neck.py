"""The first and the last layers of a published ImageEncoderViT, channels last throughout."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from nucseg.encoders.norms import norm_channels
from nucseg.encoders.parameters import frozen


class PatchEmbedding(nn.Module):
    """The 16 x 16 patch convolution as one matrix product, channels last.

    Shapes:
        x        (B, 3, G_h * P, G_w * P)
        returns  (B, G_h, G_w, C)   contiguous
    """

    def __init__(self, published: Any) -> None:
        super().__init__()
        convolution = published.proj
        self.patch_px: int = convolution.kernel_size[0]
        self.weight = frozen(convolution.weight.permute(0, 2, 3, 1).flatten(1))
        self.bias = frozen(convolution.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Embed every patch."""
        b, c, height, width = x.shape
        p = self.patch_px
        patches = x.view(b, c, height // p, p, width // p, p).permute(0, 2, 4, 3, 5, 1)
        return F.linear(patches.reshape(b, height // p, width // p, -1), self.weight, self.bias)


class Neck(nn.Module):
    """The two convolutions to the embedding, channels last, with their norms in float32.

    Shapes:
        x        (B, C, G_h, G_w)     channels last in memory
        returns  (B, 256, G_h, G_w)   float32
    """

    def __init__(self, published: Any) -> None:
        super().__init__()
        to_embedding, self.norm1, self.convolution, self.norm2 = published
        self.weight = frozen(to_embedding.weight.flatten(1))

    def forward(self, x: Tensor) -> Tensor:
        """Turn tokens into the embedding."""
        narrow = norm_channels(F.linear(x.movedim(1, -1), self.weight), self.norm1).to(x.dtype)
        # the output of the last norm stays float32: rounding it would only lose precision
        mixed: Tensor = self.convolution(narrow.movedim(-1, 1))
        return norm_channels(mixed.movedim(1, -1), self.norm2).movedim(-1, 1)
