"""What a trained network says of rows: probability maps, and its scores on the validation part."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nucseg.adaptive_batch import AdaptiveBatcher
from nucseg.data import content_size
from nucseg.losses import SegmentationLoss
from nucseg.metrics import count_pixels, dice
from nucseg.models import Outputs, SegmentationModel
from nucseg_cache import SampleRow
from nucseg_pipeline.loading.batch import Batch, collate
from nucseg_pipeline.loading.batches import batches
from nucseg_pipeline.loading.dataset import EmbeddingDataset, stream

Taken = TypeVar("Taken")

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


def predict(
    model: SegmentationModel, rows: EmbeddingDataset, *, device: torch.device, batch_size: int = 8
) -> Iterator[Prediction]:
    """Probability maps of rows in their order, in float32, without augmentation.

    Where memory does not suffice for `batch_size` images at once, fewer are taken; OutOfMemory where not even one fits.
    """
    model.eval()
    at_once = AdaptiveBatcher(batch_size)
    for share in stream(rows, batches(range(len(rows)), batch_size)):
        maps = _taken(model, collate(share, device), _maps)
        for part, (probabilities, distances) in at_once.batches(range(len(share)), maps):
            for i, one, distance in zip(part, probabilities, distances, strict=True):
                yield Prediction(share[i].sample, one, distance)


def validate(
    model: SegmentationModel,
    rows: EmbeddingDataset,
    *,
    device: torch.device,
    batch_size: int,
    process: int = 0,
    n_processes: int = 1,
) -> Scores:
    """Loss and foreground Dice (both empty 1, one empty 0; ignored pixels in neither) of one process's rows."""
    model.eval()
    own = range(process, len(rows), n_processes)
    losses, dices, at_once = [0.0], [], AdaptiveBatcher(batch_size)
    for share in stream(rows, batches(own, batch_size)):
        batch = collate(share, device)
        parts = at_once.batches(range(len(share)), _taken(model, batch, lambda outputs: outputs.sides[0].float()))
        logits = torch.cat([made for _, made in parts])
        losses.append(float(SegmentationLoss()(logits, batch.target, batch.ignore)) * len(share))
        for row, one in zip(share, _probability(logits), strict=True):
            sample = row.sample
            dices.append(dice(count_pixels(sample.instances > 0, one >= THRESHOLD, sample.ignore)))
    return Scores(loss=sum(losses), dice=sum(dices), n_images=len(dices))


def _taken(
    model: SegmentationModel, batch: Batch, take: Callable[[Outputs], Taken]
) -> Callable[[Sequence[int]], Taken]:
    """What is taken of the network's outputs for consecutive images of a batch."""

    @torch.no_grad()
    def of(part: Sequence[int]) -> Taken:
        some = slice(part[0], part[-1] + 1)
        embedding = None if batch.embedding is None else batch.embedding[some].float()
        return take(model.outputs(batch.image[some], embedding))

    return of


def _maps(outputs: Outputs) -> tuple[NDArray[np.float32], Sequence[NDArray[np.float32] | None]]:
    """(B, H, W) probabilities on the CPU, and as many maps of distance, or Nones where the network has none."""
    probability = _probability(outputs.sides[0])
    distance = outputs.distance
    return probability, [None] * len(probability) if distance is None else list(distance.float().cpu().numpy())


@torch.no_grad()
def _probability(logits: Tensor) -> NDArray[np.float32]:
    """(B, H, W) probability of the second class, nucleus, on the CPU."""
    probability: NDArray[np.float32] = logits.float().softmax(1)[:, 1].cpu().numpy()
    return probability
