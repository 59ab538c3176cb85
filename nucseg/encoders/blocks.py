"""The transformer blocks of a published ImageEncoderViT, with the same results and less work.

Their weights are derived once, in float32, from the published ones: the affine part of a norm is folded into the
linear map after it (so that a single kernel computes the norm in float32, whatever the precision), and the scale of
the attention scores into the weights of the queries.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nucseg.encoders.attention import VARIANTS, Attend
from nucseg.encoders.norms import fold_norm, normed
from nucseg.encoders.parameters import frozen
from nucseg.encoders.windows import Windows

RelativePositions = Callable[[int, int, Tensor], Tensor]
"""segment_anything's get_rel_pos: (query size, key size, table (L, C)) -> (query size, key size, C)."""

CHUNK_BYTES = 1 << 25
"""Largest intermediate on a CPU: beyond it glibc's malloc requests fresh pages each time, which cost more than GELU."""


class Attention(nn.Module):
    """A block's first norm and its attention, over the whole grid or within windows.

    Tokens that pad a window are zero after the norm, so their queries, keys and values equal the bias: only tokens of
    the grid pass through the linear maps.

    Shapes:
        x        (B, G_h, G_w, C)
        returns  (B, G_h, G_w, C)
    """

    def __init__(self, published: Any, grid: tuple[int, int], relative_positions: RelativePositions) -> None:
        super().__init__()
        attention, norm = published.attn, published.norm1
        self.grid = grid
        self.n_channels: int = attention.qkv.in_features
        self.windows = Windows(grid, published.window_size) if published.window_size else None
        """None where every token attends to the whole grid."""
        self.n_heads: int = attention.num_heads
        self.eps: float = norm.eps
        self.attend: Attend = VARIANTS["mask"]
        """All variants are exact; `autotune` chooses one by speed."""
        scale = (self.n_channels // self.n_heads) ** -0.5
        for part, name in enumerate("qkv"):
            factor = scale if name == "q" else 1.0
            weight, bias = (p.float().chunk(3)[part] * factor for p in (attention.qkv.weight, attention.qkv.bias))
            self.register_parameter(f"{name}_pad", frozen(bias))
            weight, bias = fold_norm(norm, weight, bias)
            self.register_parameter(f"{name}_weight", frozen(weight))
            self.register_parameter(f"{name}_bias", frozen(bias))
        self.proj: nn.Module = attention.proj
        g_h, g_w = (published.window_size,) * 2 if published.window_size else grid
        self.rel_h = frozen(_falling(relative_positions(g_h, g_h, attention.rel_pos_h.float())) / scale)
        self.rel_w = frozen(_falling(relative_positions(g_w, g_w, attention.rel_pos_w.float())) / scale)

    def forward(self, x: Tensor) -> Tensor:
        """Attend from every token to every token of its window, or of the grid."""
        tokens = normed(x, self.eps)
        q, k, v = (self._project(tokens, name) for name in "qkv")
        rel_h, rel_w = relative_terms(q, self.rel_h, self.rel_w)
        q, k, v = (part.flatten(1, 2).transpose(1, 2) for part in (q, k, v))
        merged = self.attend(q, k, v, rel_h, rel_w).transpose(1, 2).flatten(2)
        result: Tensor = self.proj(merged.view(x.shape) if self.windows is None else self.windows.join(merged))
        return result

    def _project(self, tokens: Tensor, name: str) -> Tensor:
        """Queries, keys or values (N, G_h, G_w, H, D) of the grid or of its windows."""
        tokens = F.linear(tokens, self.get_parameter(f"{name}_weight"), self.get_parameter(f"{name}_bias"))
        if self.windows is not None:
            tokens = self.windows.split(tokens, self.get_parameter(f"{name}_pad"))
        return tokens.view(*tokens.shape[:-1], self.n_heads, -1)


class Mlp(nn.Module):
    """A block's second norm and its two linear maps with GELU in between.

    Shapes:
        x        (B, G_h, G_w, C)
        returns  (B, G_h, G_w, C)
    """

    def __init__(self, published: Any) -> None:
        super().__init__()
        norm, expand, shrink = published.norm2, published.mlp.lin1, published.mlp.lin2
        self.eps: float = norm.eps
        weight, bias = fold_norm(norm, expand.weight, expand.bias)
        self.weight, self.bias = frozen(weight), frozen(bias)
        self.shrink: nn.Module = shrink

    def forward(self, x: Tensor) -> Tensor:
        """Map every token independently."""
        tokens = normed(x, self.eps).flatten(0, 2)
        n_chunks = 1
        if x.device.type == "cpu":
            n_chunks = -(-len(tokens) * len(self.weight) * x.element_size() // CHUNK_BYTES)
        out = [self.shrink(F.gelu(F.linear(chunk, self.weight, self.bias))) for chunk in tokens.chunk(n_chunks)]
        return (out[0] if n_chunks == 1 else torch.cat(out)).view(x.shape)


class Block(nn.Module):
    """A transformer block: attention and MLP, each added to its input.

    Shapes:
        x        (B, G_h, G_w, C)   contiguous
        returns  (B, G_h, G_w, C)
    """

    def __init__(self, published: Any, grid: tuple[int, int], relative_positions: RelativePositions) -> None:
        super().__init__()
        self.attention = Attention(published, grid, relative_positions)
        self.mlp = Mlp(published)

    def forward(self, x: Tensor) -> Tensor:
        """Run the block without changing `x`; each sum reuses the memory of its newer summand."""
        x = self.attention(x).add_(x)
        result: Tensor = self.mlp(x).add_(x)
        return result


def relative_terms(q: Tensor, falling_h: Tensor, falling_w: Tensor) -> tuple[Tensor, Tensor]:
    """Both terms that the relative position of a key adds to the score of a query.

    Every query is multiplied once with every distance; strides then select the distance of each key.

    Shapes:
        q         (N, G_h, G_w, H, D)
        falling_h (2 * G_h - 1, D)   distances from G_h - 1 down to 1 - G_h
        returns   (N, H, G_h, G_w, G_h) and (N, H, G_h, G_w, G_w), views
    """
    n, g_h, g_w, n_heads, _ = q.shape
    by_row, by_column = F.linear(q, falling_h), F.linear(q, falling_w)
    entry, y, x, head, _ = by_row.stride()
    rel_h = by_row.as_strided((n, n_heads, g_h, g_w, g_h), (entry, head, y - 1, x, 1), g_h - 1)
    entry, y, x, head, _ = by_column.stride()
    rel_w = by_column.as_strided((n, n_heads, g_h, g_w, g_w), (entry, head, y, x - 1, 1), g_w - 1)
    return rel_h, rel_w


def _falling(table: Tensor) -> Tensor:
    """Each distance of a (G, G, D) table once, in falling order: (2 * G - 1, D)."""
    # table[q, k] belongs to distance q - k: the last row falls from G - 1 to 0, the first continues from -1
    return torch.cat([table[-1], table[0, 1:]])
