"""What a training shows of its rows: which view of each is read, how it moves, and how its embedding follows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import xxhash
from torch import Tensor

from nucseg.replay import Geometry, Motions, Replay
from nucseg.replay.transforms import NONE
from nucseg.views.registry import D4_VIEWS, IDENTITY
from nucseg_pipeline.loading.batch import Batch, Row
from nucseg_pipeline.loading.dataset import EmbeddingDataset


@dataclass(frozen=True)
class Augmentation:
    """What is drawn for each sample and epoch, from the seed, the epoch and the id alone."""

    geometry: Geometry
    replay: Replay | None
    """How embeddings follow their images; None leaves them as they are, which is wrong and there for comparison."""
    views: tuple[str, ...] = ()
    """The views that the rows were opened with beside the identity: the seven of D4, photometric variants, or none."""

    @property
    def is_exact(self) -> bool:
        """Whether the orientations are read, not replayed."""
        return self.views == D4_VIEWS

    def shown(
        self, rows: EmbeddingDataset, indices: Sequence[int], *, seed: int, epoch: int
    ) -> tuple[list[Row], Motions]:
        """Read rows in the views of this epoch, and draw how they move."""
        ids = [rows.ids[index] for index in indices]
        motions = self.geometry.motions(seed, epoch, ids, side=rows.side_px)
        if self.is_exact:
            views = [(IDENTITY, *D4_VIEWS)[element] for element in motions.elements]
        else:
            choices = (IDENTITY, *self.views)
            views = [choices[_draw(seed, epoch, one) % len(choices)] for one in ids]
        return rows.read(indices, views), motions

    def moved(self, batch: Batch, motions: Motions) -> Batch:
        """Move everything of a batch, on its device; what came from outside an image is ignored."""
        if self.geometry.text == NONE:
            return batch
        motions = motions.to(batch.image.device)
        return replace(
            batch,
            image=motions.apply(batch.image),
            target=_moved_mask(motions, batch.target, outside=0),
            ignore=_moved_mask(motions, batch.ignore, outside=1),
            distance=None if batch.distance is None else motions.apply(batch.distance[:, None])[:, 0],
            embedding=self._replayed(batch.embedding, motions),
        )

    def _replayed(self, embedding: Tensor | None, motions: Motions) -> Tensor | None:
        if embedding is None or self.replay is None:
            return embedding
        return self.replay(embedding, motions, views=self.is_exact)


def _draw(seed: int, epoch: int, sample_id: str) -> int:
    return xxhash.xxh3_64_intdigest(f"view/{seed}/{epoch}/{sample_id}".encode())


def _moved_mask(motions: Motions, mask: Tensor, *, outside: int) -> Tensor:
    return motions.apply(mask[:, None], nearest=True, outside=outside)[:, 0]
