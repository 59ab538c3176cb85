"""SAM's attention with decomposed relative position, through PyTorch's fused attention.

Published as softmax(q k / sqrt(C) + rel_h + rel_w) v, in four full-size intermediates; here the same sum is the
mask of one `scaled_dot_product_attention` (ViTDet, Li et al. 2022; segment_anything, image_encoder.py).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MASK_BYTES = {"cpu": 1 << 27, "cuda": 1 << 31}
"""Most memory that one mask may take, by kind of device; others as the CPU.

A mask over the whole grid is 4096 x 4096 for every image and head: 805 MB in float32 for one image of ViT-B. So heads
are taken two at a time in float32 on a CPU, and by the dozen on a GPU, which wants large work.
"""

RelativePositions = Callable[[int, int, Tensor], Tensor]
"""segment_anything's get_rel_pos: (query size, key size, table (L, C)) -> (query size, key size, C)."""


class FusedAttention(nn.Module):
    """Equals the published Attention module whose parameters it takes over, faster and in less memory.

    Shapes:
        x        (B, G_h, G_w, C)   tokens on their grid: the whole grid, or one window an entry
        returns  (B, G_h, G_w, C)
    """

    def __init__(self, published: Any, relative_positions: RelativePositions) -> None:
        super().__init__()
        self.num_heads: int = published.num_heads
        self.qkv: nn.Module = published.qkv
        self.proj: nn.Module = published.proj
        self.rel_pos_h: nn.Parameter = published.rel_pos_h
        self.rel_pos_w: nn.Parameter = published.rel_pos_w
        self._relative_positions = relative_positions

    def forward(self, x: Tensor) -> Tensor:
        """Attend from every token to every token of its entry."""
        n, g_h, g_w, _ = x.shape
        heads = self.qkv(x).reshape(n, g_h * g_w, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        q, k, v = heads.reshape(3, n * self.num_heads, g_h * g_w, -1).unbind(0)
        table_h = self._relative_positions(g_h, g_h, self.rel_pos_h)
        table_w = self._relative_positions(g_w, g_w, self.rel_pos_w)
        step = heads_at_once(g_h * g_w, q.element_size(), q.device.type)
        parts = zip(q.split(step), k.split(step), v.split(step), strict=True)
        out = torch.cat([_attend(part, table_h, table_w) for part in parts])
        merged = out.view(n, self.num_heads, g_h, g_w, -1).permute(0, 2, 3, 1, 4).reshape(n, g_h, g_w, -1)
        result: Tensor = self.proj(merged)
        return result


def heads_at_once(n_tokens: int, element_bytes: int, device_type: str) -> int:
    """How many heads' masks of (n_tokens, n_tokens) fit into MASK_BYTES; at least one."""
    budget = MASK_BYTES.get(device_type, MASK_BYTES["cpu"])
    return max(1, budget // (n_tokens * n_tokens * element_bytes))


def fuse_attention(encoder: nn.Module, relative_positions: RelativePositions) -> None:
    """Put a FusedAttention in the place of every block's attention, on the same parameters."""
    for block in encoder.get_submodule("blocks").children():
        block.attn = FusedAttention(block.attn, relative_positions)


def _attend(qkv: tuple[Tensor, Tensor, Tensor], table_h: Tensor, table_w: Tensor) -> Tensor:
    """Attention of some heads: q, k, v each (heads, G_h * G_w, C); the tables (G_h, G_h, C) and (G_w, G_w, C)."""
    q, k, v = qkv
    g_h, g_w = table_h.shape[0], table_w.shape[0]
    grid = q.view(-1, g_h, g_w, q.shape[-1])
    rel_h = torch.einsum("nhwc,hkc->nhwk", grid, table_h).contiguous()
    # contiguous: a sum of einsum's permuted results would be permuted too, and copied once more to be flattened
    rel_w = torch.einsum("nhwc,wkc->nhwk", grid, table_w).contiguous()
    mask = (rel_h[..., :, None] + rel_w[..., None, :]).view(-1, g_h * g_w, g_h * g_w)
    # as the heads of one entry: the fused kernels want four axes
    return F.scaled_dot_product_attention(q[None], k[None], v[None], attn_mask=mask[None])[0]
