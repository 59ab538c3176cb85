"""The loss of a segmentation network on one batch."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nucseg.errors import ConfigError
from nucseg.losses import SegmentationLoss, distance_loss, presence_loss
from nucseg.models import SegmentationModel


class Objective(nn.Module):
    """A network together with its loss, so that every process computes both inside one forward pass.

    With deep supervision the loss is the mean over the decoder levels, each at full size (U-Net3+, Huang et al.
    2020, section 2.2; the mean instead of their sum keeps the scale, and so the learning rate's meaning). What the
    options of `ModelConfig` predict in addition has its own term (`nucseg.losses`), with a weight of one.
    """

    def __init__(self, model: SegmentationModel) -> None:
        super().__init__()
        self.model = model
        self.loss = SegmentationLoss()

    def forward(
        self, image: Tensor, embedding: Tensor | None, target: Tensor, ignore: Tensor, distance: Tensor | None = None
    ) -> Tensor:
        """Scalar loss of a batch; shapes as in `nucseg_pipeline.loading.batch.Batch`.

        Raises:
            ConfigError: the network has a distance head, and the batch no distances.
        """
        outputs = self.model.outputs(image, embedding)
        # a sum over a whole image does not fit half precision
        with torch.autocast(image.device.type, enabled=False):
            loss = torch.stack([self.loss(logits.float(), target, ignore) for logits in outputs.sides]).mean()
            if outputs.presence is not None:
                loss = loss + presence_loss(outputs.presence.float(), target, ignore)
            if outputs.distance is not None:
                loss = loss + distance_loss(outputs.distance.float(), _required(distance), target, ignore)
        return loss


def _required(distance: Tensor | None) -> Tensor:
    if distance is None:
        raise ConfigError(
            "a network with the instance head distance is trained on distance maps, and the batch has none. "
            "Open its rows with distances=True."
        )
    return distance
