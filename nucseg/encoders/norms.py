"""Norms computed in float32 inside a network of lower precision; half precision overflows in them."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor

FLOAT32_INSIDE = ("cpu", "cuda")
"""Devices whose layer norm of half precision sums in float32 by itself."""


def normed(x: Tensor, eps: float) -> Tensor:
    """Centre and scale the last axis, in float32; the result has the precision of `x`."""
    if x.device.type in FLOAT32_INSIDE:
        return F.layer_norm(x, x.shape[-1:], eps=eps)
    return F.layer_norm(x.float(), x.shape[-1:], eps=eps).to(x.dtype)


def behind_norm(norm: Any, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Weight and bias, in float32, of the linear map behind a norm that reads it before the norm's affine part."""
    weight = weight.float()
    return weight * norm.weight.float(), bias.float() + weight @ norm.bias.float()


def norm_channels(x: Tensor, norm: Any) -> Tensor:
    """segment_anything's LayerNorm2d over the last axis, in float32."""
    return F.layer_norm(x.float(), x.shape[-1:], norm.weight, norm.bias, norm.eps)
