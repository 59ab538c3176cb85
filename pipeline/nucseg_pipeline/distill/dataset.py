"""The images that a student sees, with the embeddings that its teacher made of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nucseg.data import content_size
from nucseg.encoders import EMBEDDING_SHAPE
from nucseg.encoders.student.encoder import padded
from nucseg.encoders.student.sizes import GRID, STUDENT_PX
from nucseg.replay import d4
from nucseg.views.registry import D4_VIEWS
from nucseg_pipeline.distill.training_sets import TeacherSet
from nucseg_pipeline.loading.batch import Row, stack_embeddings
from nucseg_pipeline.loading.dataset import EmbeddingDataset


@dataclass(frozen=True, eq=False)
class TargetScaler:
    """Standardises embeddings: mean 0 in each channel over all cells, mean square 1 over those inside the images."""

    means: Tensor
    """(256,) float32, over all cells of the training images as they are, including their padding."""
    spread: float
    """Root of the mean squared distance from the means."""

    def scale(self, embeddings: Tensor) -> Tensor:
        """Standardise (..., 256, 64, 64) of any type to float32; a batch is returned channels last in memory."""
        layout = torch.channels_last if embeddings.ndim == 4 else torch.contiguous_format
        scaled = torch.empty(embeddings.shape, memory_format=layout)
        offset = (-self.means / self.spread)[:, None, None]
        return torch.add(offset, embeddings, alpha=1 / self.spread, out=scaled)  # in one pass: it is large


@dataclass(frozen=True, eq=False)
class DistillBatch:
    """Images and what the student should return for them."""

    images: Tensor
    """(B, 3, 256, 256) float32, normalised, zero in the padding."""
    targets: Tensor
    """(B, 256, 64, 64) float32, standardised; channels last in memory, as the network returns its own."""
    inside: Tensor
    """(B, 1, 64, 64) float32, 1 where the cell lies inside the image."""


class DistillDataset:
    """Every view of every image of one part of all data sets, or the images as they are alone.

    A `nucseg_pipeline.train.trainer.TrainingSet`.
    """

    def __init__(self, sets: Sequence[TeacherSet], part: str, scaler: TargetScaler, *, with_views: bool) -> None:
        """Open the rows of a part: train, validation or test."""
        self._scaler, self._sets = scaler, sets
        ids = [getattr(teacher_set.parts, part) for teacher_set in sets]
        self._rows = [
            EmbeddingDataset(
                teacher_set.store, teacher_set.embeddings, own, views=teacher_set.views if with_views else {}
            )
            for teacher_set, own in zip(sets, ids, strict=True)
        ]
        self._items = [
            (number, position, view)
            for number, (teacher_set, own) in enumerate(zip(sets, ids, strict=True))
            for position, view in teacher_set.views_of(own)
            if with_views or view not in teacher_set.views
        ]

    def __len__(self) -> int:
        return len(self._items)

    @property
    def ids(self) -> list[str]:
        """A name for each item: data set, view, id."""
        return [
            f"{self._sets[number].dataset}/{view}/{self._rows[number].ids[position]}"
            for number, position, view in self._items
        ]

    def read(self, indices: Sequence[int], epoch: int = 0) -> DistillBatch:
        """Read some items in their order; they are the same in every epoch."""
        items = [self._items[index] for index in indices]
        rows: dict[int, Row] = {}
        targets = torch.empty((len(items), *EMBEDDING_SHAPE), memory_format=torch.channels_last)
        for number in sorted({number for number, _, _ in items}):  # each may be stored in a format of its own
            own = [i for i, item in enumerate(items) if item[0] == number]
            read = self._rows[number].read([items[i][1] for i in own], [items[i][2] for i in own])
            rows |= zip(own, read, strict=True)
            targets[own] = self._scaler.scale(stack_embeddings(read))
        images, inside = self._images([rows[i] for i in range(len(items))], items)
        return DistillBatch(images, targets, inside)

    def collate(self, batch: DistillBatch, device: torch.device) -> tuple[Tensor, ...]:
        """The arguments of `nucseg_pipeline.distill.trainer.DistillationLoss`, on its device."""
        return batch.images.to(device), batch.targets.to(device), batch.inside.to(device)

    def _images(self, rows: Sequence[Row], items: Sequence[tuple[int, int, str]]) -> tuple[Tensor, Tensor]:
        """The images of rows and which of their cells count; orientations are turned here."""
        contents = [content_size(row.sample.size, STUDENT_PX) for row in rows]
        images = padded([row.sample.image[:h, :w] for row, (h, w) in zip(rows, contents, strict=True)])
        inside = torch.stack([_inside(h, w) for h, w in contents])
        for i, (_, _, view) in enumerate(items):
            if view in D4_VIEWS:
                element = D4_VIEWS.index(view) + 1
                images[i], inside[i] = (d4.apply(x[i], element).clone() for x in (images, inside))
        return images, inside


def _inside(height: int, width: int) -> Tensor:
    """(1, 64, 64) float32: the cells of which at least half lies inside the image, whose longer side is 256 px."""
    rows, columns = content_size((height, width), GRID)
    inside = torch.zeros(1, GRID, GRID)
    inside[:, :rows, :columns] = 1
    return inside


def content(row: Row) -> NDArray[np.uint8]:
    """The prepared image of a row without its padding, (h, w, 3), as an encoder takes it."""
    height, width = content_size(row.sample.size, STUDENT_PX)
    return row.sample.image[:height, :width]


def cells_inside(row: Row) -> Tensor:
    """(64, 64) bool, the cells that lie inside the image of a row."""
    return _inside(*content_size(row.sample.size, STUDENT_PX))[0].bool()
