"""What a trained network says of rows: probability maps, and its scores on the validation part."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nucseg.data import content_size
from nucseg.losses import SegmentationLoss
from nucseg.metrics import count_pixels, dice
from nucseg.models import Outputs, SegmentationModel
from nucseg_cache import SampleRow
from nucseg_pipeline.batch import Batch, collate
from nucseg_pipeline.rows import Rows, batches, stream

THRESHOLD = 0.5
"""Nucleus probability from which a pixel is foreground while epochs are compared."""


@dataclass(frozen=True, eq=False)
class Prediction:
    """A sample and what a network says of it."""

    sample: SampleRow
    probability: NDArray[np.float32]
    """(H, W) probability of nucleus on the grid of the prepared image."""
    distance: NDArray[np.float32] | None = None
    """(H, W) how far inside its nucleus a pixel lies; None if the network does not say."""

    @property
    def content(self) -> tuple[slice, slice]:
        """Rows and columns that the image covers: what a network says of the padding is nothing."""
        h, w = content_size(self.sample.size, len(self.probability))
        return slice(h), slice(w)


@dataclass(frozen=True)
class Scores:
    """Sums over images, to be added up over processes."""

    loss: float
    dice: float
    n_images: int


def predict(model: SegmentationModel, rows: Rows, *, device: torch.device, batch_size: int = 8) -> Iterator[Prediction]:
    """Probability maps of rows in their order, in float32, without augmentation."""
    model.eval()
    for share in stream(rows, batches(range(len(rows)), batch_size)):
        outputs = _outputs(model, collate(share, device))
        distances = [None] * len(share) if outputs.distance is None else outputs.distance.float().cpu().numpy()
        for row, one, distance in zip(share, _probability(outputs.sides[0]), distances, strict=True):
            yield Prediction(row.sample, one, distance)


def validate(
    model: SegmentationModel,
    rows: Rows,
    *,
    device: torch.device,
    batch_size: int,
    process: int = 0,
    n_processes: int = 1,
) -> Scores:
    """Loss and foreground Dice (both empty 1, one empty 0; ignored pixels in neither) of one process's rows."""
    model.eval()
    own = range(process, len(rows), n_processes)
    losses, dices = [0.0], []
    for share in stream(rows, batches(own, batch_size)):
        batch = collate(share, device)
        logits = _outputs(model, batch).sides[0].float()
        losses.append(float(SegmentationLoss()(logits, batch.target, batch.ignore)) * len(share))
        for row, one in zip(share, _probability(logits), strict=True):
            sample = row.sample
            dices.append(dice(count_pixels(sample.instances > 0, one >= THRESHOLD, sample.ignore)))
    return Scores(loss=sum(losses), dice=sum(dices), n_images=len(dices))


@torch.no_grad()
def _outputs(model: SegmentationModel, batch: Batch) -> Outputs:
    return model.outputs(batch.image, None if batch.embedding is None else batch.embedding.float())


@torch.no_grad()
def _probability(logits: Tensor) -> NDArray[np.float32]:
    """(B, H, W) probability of the second class, nucleus, on the CPU."""
    probability: NDArray[np.float32] = logits.float().softmax(1)[:, 1].cpu().numpy()
    return probability
