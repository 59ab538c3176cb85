"""What happens to one batch: turning it, and the loss of a network on it."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from nucseg.losses import SegmentationLoss
from nucseg.models import SegmentationModel
from nucseg.replay import d4, replay_batch
from nucseg_pipeline.rows import Batch


class Objective(nn.Module):
    """A network together with its loss, so that every process computes both inside one forward pass.

    With deep supervision the loss is the mean over the decoder levels, each at full size (U-Net3+, Huang et al.
    2020, section 2.2; the mean instead of their sum keeps the scale, and so the learning rate's meaning).
    """

    def __init__(self, model: SegmentationModel) -> None:
        super().__init__()
        self.model = model
        self.loss = SegmentationLoss()

    def forward(self, image: Tensor, embedding: Tensor | None, target: Tensor, ignore: Tensor) -> Tensor:
        """Scalar loss of a batch; shapes as in `nucseg_pipeline.rows.Batch`."""
        sides = self.model.side_logits(image, embedding)
        # a sum over a whole image does not fit half precision
        with torch.autocast(image.device.type, enabled=False):
            losses = [self.loss(side.float(), target, ignore) for side in sides]
        return torch.stack(losses).mean()


def turned(batch: Batch, *, seed: int, epoch: int, pattern: Tensor | None) -> Batch:
    """Flip and quarter-turn each sample by its own element of D4, drawn from (seed, epoch, id).

    Image, target, ignore and embedding turn together. `pattern` (256, 64, 64) is the positional pattern that stays
    in place while an embedding turns; None turns the whole embedding.
    """
    elements = [d4.draw(seed, epoch, one) for one in batch.ids]
    image, target, ignore = (torch.empty_like(x) for x in (batch.image, batch.target, batch.ignore))
    for i, element in enumerate(elements):
        image[i] = d4.apply(batch.image[i], element)
        target[i] = d4.apply(batch.target[i], element)
        ignore[i] = d4.apply(batch.ignore[i], element)
    embedding = None if batch.embedding is None else replay_batch(batch.embedding, elements, pattern)
    return replace(batch, image=image, target=target, ignore=ignore, embedding=embedding)
