"""What a network makes of an image on its way: the maps of its encoder, and those that the guidance changed."""

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
    """The maps of a batch, as paper A shows them in its figure 3.

    Shapes, with W the width of the network, S the side of the image and G = S / 16:
        levels[i]       (B, W * 2**i, S / 2**i, S / 2**i)   finest first, the last is the latent
        embedding       (B, 256, 64, 64)
        concatenation   (B, 16 * W + 256, G, G)
        fused[i]        as levels[i]
    """

    levels: tuple[Tensor, ...]
    """What the encoder returns."""
    embedding: Tensor | None
    """What guides, in float32; None without guidance."""
    concatenation: Tensor | None
    """The latent, then the embedding averaged to its grid: both as they are, so their channels differ in scale; None
    without guidance.

    Principal components of it as it is are those of the source with the larger numbers. For colours standardise its
    channels: then 16 * W channels of the latent stand against 256 of the embedding, and what most channels agree on
    comes first. The paper does not say what it did."""
    fused: tuple[Tensor, ...]
    """What the fusion returns, its last map is the block's output; empty without guidance."""

    @property
    def changed(self) -> tuple[int, ...]:
        """The levels whose map the fusion changed, finest first, counted from 0."""
        pairs = zip(self.levels, self.fused, strict=bool(self.fused))
        return tuple(level for level, (before, after) in enumerate(pairs) if not torch.equal(before, after))


@torch.no_grad()
def encoder_features(model: SegmentationModel, image: Tensor, embedding: Tensor | None = None) -> Features:
    """Run a network in evaluation mode and return what its encoder and its fusion returned.

    Args:
        model: any of `nucseg.models.MODELS`; left in the mode that it was in.
        image: (B, 3, S, S), as `SegmentationModel` takes it.
        embedding: (B, 256, 64, 64); unused without guidance.

    Raises:
        ConfigError: an input is not what `SegmentationModel` takes.
    """
    heard: dict[str, tuple[Tensor, ...]] = {}

    def listen(name: str, part: nn.Module) -> None:
        def hook(module: nn.Module, inputs: object, maps: Sequence[Tensor]) -> None:
            # a copy, because the decoder may put its own maps into the list, and activations may work in place
            heard[name] = tuple(one.clone() for one in maps)

        handles.callback(part.register_forward_hook(hook).remove)

    training = model.training
    with ExitStack() as handles:
        listen("encoder", model.encoder)
        listen("fusion", model.fusion)
        handles.callback(model.train, training)
        model.eval()
        model(image, embedding)
    if embedding is None or not model.guided:
        return Features(levels=heard["encoder"], embedding=None, concatenation=None, fused=())
    latent, guide = heard["encoder"][-1], embedding.float()
    pooled = F.adaptive_avg_pool2d(guide, latent.shape[-2:])  # type: ignore[arg-type]  # two numbers
    return Features(
        levels=heard["encoder"],
        embedding=guide,
        concatenation=torch.cat([latent.float(), pooled], dim=1),
        fused=heard["fusion"],
    )
