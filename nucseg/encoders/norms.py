"""Norms computed in float32 within a network of lower precision, because half precision overflows in them."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor

FLOAT32_INSIDE = ("cpu", "cuda")
"""Devices whose half-precision layer norm already sums in float32."""


def normed(x: Tensor, eps: float) -> Tensor:
    """Centre and scale the last axis, in float32; the result has the precision of `x`."""
    if x.device.type in FLOAT32_INSIDE:
        return F.layer_norm(x, x.shape[-1:], eps=eps)
    return F.layer_norm(x.float(), x.shape[-1:], eps=eps).to(x.dtype)


def fold_norm(norm: Any, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Fold the affine part of a norm into the linear map after it; returns its weight and bias in float32."""
    weight = weight.float()
    return weight * norm.weight.float(), bias.float() + weight @ norm.bias.float()


def norm_channels(x: Tensor, norm: Any) -> Tensor:
    """segment_anything's LayerNorm2d over the last axis, in float32."""
    return F.layer_norm(x.float(), x.shape[-1:], norm.weight, norm.bias, norm.eps)
