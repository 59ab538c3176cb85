"""Exact variants of attention with SAM's decomposed relative position, without its full-size intermediates.

The published attention is softmax(q k / sqrt(D) + rel_h + rel_w) v, where the bias of query q and key k depends only
on the row and the column of k (ViTDet, Li et al. 2022; segment_anything, image_encoder.py). Which variant is fastest
depends on the device: see `nucseg.encoders.autotune`. Here q is already scaled.

Shapes:
    q, k, v   (N, H, G_h * G_w, D)   images or windows, heads, tokens of a grid in reading order
    rel_h     (N, H, G_h, G_w, G_h)  query row and column, key row
    rel_w     (N, H, G_h, G_w, G_w)  query row and column, key column
    returns   (N, H, G_h * G_w, D)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

Attend = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]
"""(q, k, v, rel_h, rel_w) -> attended values."""

MASK_BYTES = {"cpu": 1 << 25, "cuda": 1 << 31}
"""Largest size of a mask, by device type; other devices use the CPU's.

A mask over the whole grid is 4096 x 4096 for every image and head: 805 MB in float32 for one image of ViT-B. On a
CPU, masks of this size stay in the caches and malloc reuses their memory (fresh pages cost as much as the mask
itself); on a GPU, one mask covers dozens of heads.
"""

WIDE_GRID = 32
"""Columns of a grid from which adding both terms is faster than a product with one-hot columns: on narrower grids the
additions do not fill the processor's vector registers."""

COLUMNS_MULTIPLE = 8
"""The fused kernels of GPUs need head sizes that are a multiple of this."""

Chunk = tuple[slice, slice, slice]
"""Images or windows, heads, and rows of queries."""


def attend_mask(q: Tensor, k: Tensor, v: Tensor, rel_h: Tensor, rel_w: Tensor) -> Tensor:
    """Pass the bias as a float mask to the fused attention, one chunk of queries at a time."""
    n, n_heads, g_h, g_w, _ = rel_h.shape
    out, mask = torch.empty_like(q), q.new_empty(0)
    for entries, heads, rows in chunks(n, n_heads, g_h, g_h * g_w * g_w * q.element_size(), q.device.type):
        # every mask reuses the memory of the last
        mask = _bias(rel_h[entries, heads, rows], rel_w[entries, heads, rows], mask)
        tokens = slice(rows.start * g_w, rows.stop * g_w)
        out[entries, heads, tokens] = F.scaled_dot_product_attention(
            q[entries, heads, tokens], k[entries, heads], v[entries, heads], attn_mask=mask, scale=1.0
        )
    return out


def attend_columns(q: Tensor, k: Tensor, v: Tensor, rel_h: Tensor, rel_w: Tensor) -> Tensor:
    """Pass the bias as extra columns: [q | rel_h | rel_w] . [k | onehot(row) | onehot(column)].

    Values are padded to the same number of columns, which the flash kernels require.
    """
    d, wide_q, wide_k = q.shape[-1], _wide_queries(q, rel_h, rel_w), _wide_keys(k, rel_h.shape[2], rel_h.shape[3])
    wide_v = F.pad(v, (0, wide_k.shape[-1] - d))
    return F.scaled_dot_product_attention(wide_q, wide_k, wide_v, scale=1.0)[..., :d]


def attend_narrow(q: Tensor, k: Tensor, v: Tensor, rel_h: Tensor, rel_w: Tensor) -> Tensor:
    """As `attend_columns`, for kernels that accept values with fewer columns than keys."""
    wide_k = _wide_keys(k, rel_h.shape[2], rel_h.shape[3])
    return F.scaled_dot_product_attention(_wide_queries(q, rel_h, rel_w), wide_k, v, scale=1.0)


def attend_flex(q: Tensor, k: Tensor, v: Tensor, rel_h: Tensor, rel_w: Tensor) -> Tensor:
    """Look up the bias inside a compiled kernel (FlexAttention); needs a compiler, and is meant for GPUs."""
    return compiled_flex()(q, k, v, rel_h.flatten(2, 3), rel_w.flatten(2, 3))


VARIANTS: dict[str, Attend] = {
    "mask": attend_mask,
    "columns": attend_columns,
    "narrow": attend_narrow,
    "flex": attend_flex,
}
"""The variants by the name that an encoder's provenance records."""


@cache
def compiled_flex(backend: str = "inductor") -> Attend:
    """FlexAttention with the decomposed bias, compiled separately for every shape."""
    from torch.nn.attention.flex_attention import flex_attention

    def attend(q: Tensor, k: Tensor, v: Tensor, rel_h: Tensor, rel_w: Tensor) -> Tensor:
        g_w = rel_w.shape[-1]

        def biased(score: Tensor, entry: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            return score + rel_h[entry, head, query, key // g_w] + rel_w[entry, head, query, key % g_w]

        result: Tensor = flex_attention(q, k, v, score_mod=biased, scale=1.0)
        return result

    compiled: Attend = torch.compile(attend, dynamic=False, backend=backend)
    return compiled


def chunks(n: int, n_heads: int, n_rows: int, row_bytes: int, device_type: str) -> Iterator[Chunk]:
    """Split the work so that a mask fits into MASK_BYTES: by images or windows, then heads, then rows of queries."""
    budget = MASK_BYTES.get(device_type, MASK_BYTES["cpu"])
    rows = min(n_rows, max(1, budget // row_bytes))
    heads = min(n_heads, budget // (row_bytes * n_rows)) or 1
    entries = min(n, budget // (row_bytes * n_rows * n_heads)) or 1
    for first in range(0, n, entries):
        for head in range(0, n_heads, heads):
            for row in range(0, n_rows, rows):
                yield slice(first, first + entries), slice(head, head + heads), slice(row, min(row + rows, n_rows))


def _bias(rel_h: Tensor, rel_w: Tensor, out: Tensor) -> Tensor:
    """Sum of both terms for every query and key (n, heads, queries, keys); reuses `out` if it has this shape."""
    n, n_heads, rows, g_w, g_h = rel_h.shape
    shape = (n, n_heads, rows * g_w, g_h * g_w)
    out = out if out.shape == shape else rel_h.new_empty(shape)
    if g_w >= WIDE_GRID:
        grid = out.view(n, n_heads, rows, g_w, g_h, g_w)
        torch.add(rel_h[..., :, None], rel_w[..., None, :], out=grid)
    else:
        terms = torch.cat([rel_h, rel_w], -1).flatten(0, 3)
        torch.mm(terms, _one_hot(g_h, g_w, rel_h).flatten(0, 1).T, out=out.view(len(terms), -1))
    return out


def _one_hot(g_h: int, g_w: int, like: Tensor) -> Tensor:
    """Row and column of every cell (G_h, G_w, G_h + G_w), one-hot."""
    rows = torch.eye(g_h, dtype=like.dtype, device=like.device)[:, None].expand(-1, g_w, -1)
    columns = torch.eye(g_w, dtype=like.dtype, device=like.device)[None].expand(g_h, -1, -1)
    return torch.cat([rows, columns], -1)


def _wide_queries(q: Tensor, rel_h: Tensor, rel_w: Tensor) -> Tensor:
    n, n_heads, g_h, g_w, _ = rel_h.shape
    d = q.shape[-1]
    wide = q.new_empty(n, n_heads, g_h, g_w, _columns(d, g_h, g_w))
    wide[..., :d] = q.reshape(n, n_heads, g_h, g_w, d)
    wide[..., d : d + g_h] = rel_h
    wide[..., d + g_h : d + g_h + g_w] = rel_w
    wide[..., d + g_h + g_w :] = 0
    return wide.flatten(2, 3)


def _wide_keys(k: Tensor, g_h: int, g_w: int) -> Tensor:
    d = k.shape[-1]
    wide = k.new_zeros(*k.shape[:2], g_h, g_w, _columns(d, g_h, g_w))
    wide[..., :d] = k.reshape(*wide.shape[:-1], d)
    wide[..., d : d + g_h + g_w] = _one_hot(g_h, g_w, k)
    return wide.flatten(2, 3)


def _columns(d: int, g_h: int, g_w: int) -> int:
    return -(-(d + g_h + g_w) // COLUMNS_MULTIPLE) * COLUMNS_MULTIPLE
