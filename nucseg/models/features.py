"""Intermediate feature maps of a network: those of its encoder, and those changed by the guidance."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nucseg.models.base import SegmentationModel


@dataclass(frozen=True, eq=False, kw_only=True)
class Features:
    """The feature maps of a batch, as in figure 3 of paper A.

    Shapes, with W the width of the network, S the side of the image and G = S / 16:
        levels[i]       (B, W * 2**i, S / 2**i, S / 2**i)   finest first, latent last
        embedding       (B, 256, 64, 64)
        concatenation   (B, 16 * W + 256, G, G)
        fused[i]        as levels[i]
    """

    levels: tuple[Tensor, ...]
    """The encoder's outputs."""
    embedding: Tensor | None
    """The embedding in float32; None without guidance."""
    concatenation: Tensor | None
    """The latent, then the embedding averaged to its grid, None without guidance.

    Both are unscaled, so the source with the larger values dominates principal components. Standardise the channels
    for colours: then the 16 * W channels of the latent and the 256 of the embedding count equally, and what most
    channels have in common comes first. The paper does not describe its method."""
    fused: tuple[Tensor, ...]
    """The fusion's outputs, with the block's output last; empty without guidance."""

    @property
    def changed(self) -> tuple[int, ...]:
        """Indices of the levels whose map the fusion changed, finest first."""
        pairs = zip(self.levels, self.fused, strict=bool(self.fused))
        return tuple(level for level, (before, after) in enumerate(pairs) if not torch.equal(before, after))


@torch.no_grad()
def encoder_features(model: SegmentationModel, image: Tensor, embedding: Tensor | None = None) -> Features:
    """Run a network in evaluation mode and return the outputs of its encoder and its fusion.

    Args:
        model: any of `nucseg.models.MODELS`; its mode is restored afterwards.
        image: (B, 3, S, S), as for `SegmentationModel`.
        embedding: (B, 256, 64, 64); unused without guidance.

    Raises:
        ConfigError: `SegmentationModel` refuses an input.
    """
    outputs: dict[nn.Module, tuple[Tensor, ...]] = {}

    def keep(module: nn.Module, inputs: object, maps: Sequence[Tensor]) -> None:
        # copies, because the decoder may replace maps in the list, and activations may work in place
        outputs[module] = tuple(feature_map.clone() for feature_map in maps)

    with ExitStack() as stack:
        for part in (model.encoder, model.fusion):
            stack.enter_context(part.register_forward_hook(keep))
        stack.callback(model.train, model.training)
        model.eval()(image, embedding)
    levels = outputs[model.encoder]
    if embedding is None or not model.guided:
        return Features(levels=levels, embedding=None, concatenation=None, fused=())
    guide = embedding.float()
    pooled = F.adaptive_avg_pool2d(guide, levels[-1].shape[-2:])  # type: ignore[arg-type]  # two numbers
    return Features(
        levels=levels,
        embedding=guide,
        concatenation=torch.cat([levels[-1].float(), pooled], dim=1),
        fused=outputs[model.fusion],
    )
