"""The torch Dataset over a store, and the batches that a network is shown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from nucseg.data import content_size
from nucseg.errors import ConfigError
from nucseg.nuclei.instances import distance_map
from nucseg.views.registry import IDENTITY
from nucseg_cache import Embeddings, SampleRow, Store
from nucseg_cache.formats import EMBEDDING_SHAPE
from nucseg_cache.reading import parallel_map
from nucseg_pipeline.loading.batch import CPU, Row, host_tensor
from nucseg_pipeline.loading.batches import READ_ROWS, batches, batches_ahead
from nucseg_pipeline.loading.prefetch import prefetch
from nucseg_pipeline.loading.preload import choose_preload_device


class EmbeddingDataset(Dataset[Row]):
    """The rows of some ids in their order; read once and kept, or read when asked for.

    Without embeddings none is read, and the store needs none. Every read is checked against its digest by the
    store: a damaged or stale row raises `nucseg_cache.RowDamaged`.
    """

    def __init__(
        self,
        store: Store,
        embeddings: Embeddings | None,
        ids: Sequence[str],
        *,
        views: Mapping[str, Embeddings] | None = None,
        preload: str = "off",
        distances: bool = False,
        device: torch.device = CPU,
    ) -> None:
        """Open the rows.

        Args:
            store: Where the samples are.
            embeddings: The embeddings that guide, or None.
            ids: Which rows, in which order.
            views: The exact views that `read` can be asked for beside the identity.
            preload: on, off, or auto: on when the rows fit in half of the memory that is free, first of all of that of
                the device, where it is a CUDA device.
            distances: whether to compute the distance map of each row's true nuclei.
            device: where the batches go.
        """
        self.ids = tuple(ids)
        self._store, self._distances, self._device = store, distances, device
        self._views = {} if embeddings is None else {IDENTITY: embeddings, **(views or {})}
        self._rows = row_numbers(store, self.ids)
        self._kept: dict[str, list[Row]] = {}
        place = choose_preload_device(self._n_bytes, preload, device) if self.ids else None
        if place is not None:
            self._keep(place)

    @property
    def side_px(self) -> int:
        """Side of the prepared images in pixels."""
        return int(self._store.preparation["side_px"])

    @property
    def in_memory(self) -> bool:
        """Whether the rows are kept in memory."""
        return bool(self._kept)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Row:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Row]:
        """Several rows at once, as torch's loaders ask for them."""
        return self.read(indices, [IDENTITY] * len(indices))

    def read(self, indices: Sequence[int], views: Sequence[str]) -> list[Row]:
        """Several rows at once, each in its view: the embedding of that view, and its image where that is another."""
        if self._kept:
            return [self._kept[view][index] for index, view in zip(indices, views, strict=True)]
        return self._seen(self._samples(indices), indices, views, pinned=self._device.type == "cuda")

    def _samples(self, indices: Sequence[int]) -> list[Row]:
        """Rows without their embeddings."""
        samples = self._store.read_samples([self._rows[index] for index in indices])
        if not self._distances:
            return [Row(sample, None) for sample in samples]
        return parallel_map(lambda sample: Row(sample, None, _distance(sample)), samples)

    def _seen(self, rows: Sequence[Row], indices: Sequence[int], views: Sequence[str], *, pinned: bool) -> list[Row]:
        """The rows with the embedding of a view each, all in one block, and its image where that is another."""
        if not self._views or not rows:
            return list(rows)
        block = host_tensor((len(rows), *EMBEDDING_SHAPE), self._views[IDENTITY].format.dtype, pinned=pinned)
        values = block.numpy()

        def seen(i: int) -> Row:
            view, row = self._views[views[i]], rows[i]
            stored = view.read_stored([self._rows[indices[i]]], out=view.allocate(1, values=values[i : i + 1]))
            sample = row.sample if stored.images is None else replace(row.sample, image=stored.images[0])
            scale = None if stored.scale is None else stored.scale[0]
            return replace(row, sample=sample, embedding=stored.values[0], scale=scale, block=block)

        return parallel_map(seen, range(len(rows)))

    def _keep(self, place: torch.device) -> None:
        """Read all rows in all views; what the views of a row have in common is in memory once."""
        kept: dict[str, list[Row]] = {view: [] for view in self._views or [IDENTITY]}
        for share in batches(range(len(self)), READ_ROWS):
            rows = self._samples(share)
            twins: list[Row | None] = [None] * len(rows)
            for view, own in kept.items():
                seen = self._seen(rows, share, [view] * len(rows), pinned=False)
                own += (
                    [replace(row, block=None) for row in seen]
                    if place == CPU
                    else [row.on(place, twin) for row, twin in zip(seen, twins, strict=True)]
                )
                twins = list(kept[IDENTITY][-len(rows) :])
        self._kept = kept

    def _n_bytes(self) -> int:
        """What all rows take in all views, at most."""
        return self[0].n_bytes * len(self) * max(len(self._views), 1)


def row_numbers(store: Store, ids: Sequence[str]) -> list[int]:
    """The store's rows of some ids; ConfigError where one is not there or has vanished from the data set."""
    numbers = {info.id: info.row for info in store.table if info.present}
    unknown = [one for one in ids if one not in numbers]
    if unknown:
        raise ConfigError(
            f"{len(unknown)} of {len(ids)} images are not in {store.location} any more, the first is {unknown[0]!r}. "
            "Put them back and run `nucseg embed` again."
        )
    return [numbers[one] for one in ids]


def _distance(sample: SampleRow) -> NDArray[np.float32]:
    # without the padding: a nucleus that the image cuts would fall off towards it, unlike one cut by another edge
    h, w = content_size(sample.size, len(sample.instances))
    distance = np.zeros(sample.instances.shape, np.float32)
    distance[:h, :w] = distance_map(sample.instances[:h, :w])
    return distance


def stream(rows: EmbeddingDataset, shares: Sequence[Sequence[int]]) -> Iterator[list[Row]]:
    """The rows of each batch; unless they are in memory, the next ones are read while the last are used."""
    if rows.in_memory:
        return map(rows.__getitems__, shares)
    return prefetch(rows.__getitems__, shares, depth=batches_ahead(shares))
