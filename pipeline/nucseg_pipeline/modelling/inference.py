"""Run a trained network on rows of a store: probability maps, and the validation scores."""

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
from nucseg_pipeline.loading.dataset import EmbeddingDataset
from nucseg_pipeline.loading.prefetch import stream

Selected = TypeVar("Selected")

THRESHOLD = 0.5
"""Nucleus probability from which validation counts a pixel as foreground."""


@dataclass(frozen=True, eq=False)
class Prediction:
    """A sample and a network's prediction for it."""

    sample: SampleRow
    probability: NDArray[np.float32]
    """(H, W) probability of nucleus on the grid of the prepared image."""
    distance: NDArray[np.float32] | None = None
    """(H, W) how far inside its nucleus a pixel lies; None if the network has no distance head."""

    @property
    def content(self) -> tuple[slice, slice]:
        """Rows and columns that the image covers; the rest is padding, where a prediction has no meaning."""
        h, w = content_size(self.sample.size, len(self.probability))
        return slice(h), slice(w)


@dataclass(frozen=True)
class Scores:
    """Sums over images, which add up over processes."""

    loss: float
    dice: float
    n_images: int


def predict(
    model: SegmentationModel, rows: EmbeddingDataset, *, device: torch.device, batch_size: int = 8
) -> Iterator[Prediction]:
    """Probability maps of rows in their order, in float32, without augmentation.

    If `batch_size` images do not fit into memory, smaller batches are used; OutOfMemory if not even one image fits.
    """
    model.eval()
    at_once = AdaptiveBatcher(batch_size)
    for share in stream(rows, batches(range(len(rows)), batch_size)):
        maps = _forward(model, collate(share, device), _maps)
        for part, (probabilities, distances) in at_once.batches(range(len(share)), maps):
            for i, probability, distance in zip(part, probabilities, distances, strict=True):
                yield Prediction(share[i].sample, probability, distance)


def validate(
    model: SegmentationModel,
    rows: EmbeddingDataset,
    *,
    device: torch.device,
    batch_size: int,
    process: int = 0,
    n_processes: int = 1,
) -> Scores:
    """Loss and foreground Dice (both empty 1, one empty 0; ignored pixels in neither) of one process's rows.

    Images in which every pixel is ignored are not counted.
    """
    model.eval()
    own = range(process, len(rows), n_processes)
    losses, dices, at_once = [0.0], [], AdaptiveBatcher(batch_size)
    for share in stream(rows, batches(own, batch_size)):
        batch = collate(share, device)
        parts = at_once.batches(range(len(share)), _forward(model, batch, lambda outputs: outputs.sides[0].float()))
        logits = torch.cat([part_logits for _, part_logits in parts])
        n_counted = int((~batch.ignore).flatten(1).any(dim=1).sum())
        losses.append(float(SegmentationLoss()(logits, batch.target, batch.ignore)) * n_counted)
        for row, probability in zip(share, _probability(logits), strict=True):
            sample = row.sample
            if not sample.ignore.all():
                dices.append(dice(count_pixels(sample.instances > 0, probability >= THRESHOLD, sample.ignore)))
    return Scores(loss=sum(losses), dice=sum(dices), n_images=len(dices))


def _forward(
    model: SegmentationModel, batch: Batch, select: Callable[[Outputs], Selected]
) -> Callable[[Sequence[int]], Selected]:
    """A function that runs the network on consecutive images of a batch and selects from its outputs."""

    @torch.no_grad()
    def run(part: Sequence[int]) -> Selected:
        images = slice(part[0], part[-1] + 1)
        embedding = None if batch.embedding is None else batch.embedding[images].float()
        return select(model.outputs(batch.image[images], embedding))

    return run


def _maps(outputs: Outputs) -> tuple[NDArray[np.float32], Sequence[NDArray[np.float32] | None]]:
    """(B, H, W) probabilities on the CPU, and as many distance maps, or Nones without a distance head."""
    probability = _probability(outputs.sides[0])
    distance = outputs.distance
    return probability, [None] * len(probability) if distance is None else list(distance.float().cpu().numpy())


@torch.no_grad()
def _probability(logits: Tensor) -> NDArray[np.float32]:
    """(B, H, W) probability of nucleus, the second class, on the CPU."""
    probability: NDArray[np.float32] = logits.float().softmax(1)[:, 1].cpu().numpy()
    return probability
