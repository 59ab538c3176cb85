"""Parameters of our encoder, derived from the published ones."""

from __future__ import annotations

from torch import Tensor, nn


def frozen(tensor: Tensor) -> nn.Parameter:
    """Make a parameter without gradient from a tensor, contiguous in memory."""
    return nn.Parameter(tensor.detach().contiguous(), requires_grad=False)
