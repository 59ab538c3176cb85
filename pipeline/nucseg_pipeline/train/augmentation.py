"""Augmentation of the training part: which view of an image is read, its colours, how it and its embedding move."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
import xxhash
from torch import Tensor

from nucseg.data import content_size
from nucseg.photometric import PhotometricRecipe
from nucseg.replay import Geometry, Motions, Replay
from nucseg.replay.transforms import NONE
from nucseg.views.registry import D4_VIEWS, IDENTITY
from nucseg_cache.reading import parallel_map
from nucseg_pipeline.loading.batch import Batch, Row, collate
from nucseg_pipeline.loading.dataset import EmbeddingDataset


@dataclass(frozen=True)
class Augmentation:
    """Views, colours and motions, drawn for each sample and epoch from the seed, the epoch and the id alone."""

    geometry: Geometry
    replay: Replay | None
    """How embeddings follow their images; None leaves them as they are, which is wrong and meant for comparison."""
    views: tuple[str, ...] = ()
    """The views besides the identity: the seven others of D4, the variants of a recipe, or none."""
    photometric: PhotometricRecipe = field(default_factory=PhotometricRecipe)
    """How the colours of an image change; its masks and its cached embedding stay as they are."""

    @property
    def is_exact(self) -> bool:
        """Whether embeddings in all orientations are read from the store, so that none need be replayed."""
        return self.views == D4_VIEWS

    def draw(self, ids: Sequence[str], *, seed: int, epoch: int, side_px: int) -> tuple[list[str], Motions]:
        """The view of each image in an epoch, and how it moves."""
        motions = self.geometry.motions(seed, epoch, ids, side=side_px)
        if self.is_exact:
            return [(IDENTITY, *D4_VIEWS)[element] for element in motions.elements], motions
        choices = (IDENTITY, *self.views)
        return [choices[_draw_number(seed, epoch, sample_id) % len(choices)] for sample_id in ids], motions

    def recolour(self, rows: list[Row], *, seed: int, epoch: int) -> list[Row]:
        """The rows with their images in the colours of an epoch; the padding of an image stays 0."""
        if not self.photometric.steps:
            return rows
        return parallel_map(lambda row: _recoloured(row, self.photometric, seed, epoch), rows)

    def apply(self, batch: Batch, motions: Motions) -> Batch:
        """Move all parts of a batch, on its device; pixels that come from outside an image are ignored."""
        if self.geometry.text == NONE:
            return batch
        motions = motions.to(batch.image.device)
        return replace(
            batch,
            image=motions.apply(batch.image),
            target=_move_mask(motions, batch.target, outside=0),
            ignore=_move_mask(motions, batch.ignore, outside=1),
            distance=None if batch.distance is None else motions.apply(batch.distance[:, None])[:, 0],
            embedding=self._replay(batch.embedding, motions),
        )

    def _replay(self, embedding: Tensor | None, motions: Motions) -> Tensor | None:
        if embedding is None or self.replay is None:
            return embedding
        return self.replay(embedding, motions, views=self.is_exact)


@dataclass(frozen=True, eq=False)
class AugmentedDataset:
    """The training part as the epochs of a run see it; a `nucseg_pipeline.train.trainer.TrainingSet`."""

    rows: EmbeddingDataset
    augmentation: Augmentation
    seed: int

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of the rows."""
        return self.rows.ids

    def read(self, indices: Sequence[int], epoch: int) -> tuple[list[Row], Motions]:
        """Read rows in their views and colours of an epoch, with the motions that `collate` applies."""
        ids = [self.rows.ids[index] for index in indices]
        views, motions = self.augmentation.draw(ids, seed=self.seed, epoch=epoch, side_px=self.rows.side_px)
        rows = self.rows.read(indices, views)
        return self.augmentation.recolour(rows, seed=self.seed, epoch=epoch), motions

    def collate(self, items: tuple[list[Row], Motions], device: torch.device) -> tuple[Tensor | None, ...]:
        """The arguments of `nucseg_pipeline.train.objective.Objective`, moved."""
        rows, motions = items
        batch = self.augmentation.apply(collate(rows, device), motions)
        embedding = None if batch.embedding is None else batch.embedding.float()
        return batch.image, embedding, batch.target, batch.ignore, batch.distance


def _recoloured(row: Row, recipe: PhotometricRecipe, seed: int, epoch: int) -> Row:
    sample = row.sample
    height, width = content_size(sample.size, len(sample.image))
    content = sample.image[:height, :width]
    changed = recipe.apply(content, seed, epoch, sample.id)
    if changed is content:
        return row
    image = np.zeros_like(sample.image)
    image[:height, :width] = changed
    return row.with_image(image)


def _draw_number(seed: int, epoch: int, sample_id: str) -> int:
    return xxhash.xxh3_64_intdigest(f"view/{seed}/{epoch}/{sample_id}".encode())


def _move_mask(motions: Motions, mask: Tensor, *, outside: int) -> Tensor:
    return motions.apply(mask[:, None], nearest=True, outside=outside)[:, 0]
