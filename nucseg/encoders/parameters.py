"""Parameters of the encoder that computes, derived from the published ones."""

from __future__ import annotations

from torch import Tensor, nn


def frozen(tensor: Tensor) -> nn.Parameter:
    """Make a parameter of a tensor's values, contiguous in memory."""
    return nn.Parameter(tensor.detach().contiguous(), requires_grad=False)
