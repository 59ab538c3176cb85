"""The torch Dataset over a store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from nucseg.data import content_size
from nucseg.errors import ConfigError
from nucseg.nuclei.instances import distance_map
from nucseg.views.masks import MaskFollower, Masks
from nucseg.views.registry import IDENTITY
from nucseg_cache import Embeddings, SampleRow, Store
from nucseg_cache.errors import minimal_embed_command
from nucseg_cache.formats import EMBEDDING_SHAPE
from nucseg_cache.reading import parallel_map
from nucseg_pipeline.loading.batch import CPU, Row, host_tensor
from nucseg_pipeline.loading.batches import READ_ROWS, batches
from nucseg_pipeline.loading.preload import choose_preload_device


class EmbeddingDataset(Dataset[Row]):
    """The rows of some ids in their order, kept in memory or read on demand.

    The store checks every read against its digest: a damaged or stale row raises `nucseg_cache.RowDamaged`.
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
            embeddings: The embeddings that guide; None reads none.
            ids: Which rows, in which order.
            views: Further views that `read` accepts, by name.
            preload: Whether to keep the rows in memory: on, off or auto, see `choose_preload_device`.
            distances: Whether to compute the distance map of each row's true nuclei.
            device: Where the batches go.

        Raises:
            ConfigError: an id is not in the store, or masks cannot follow one of the views.
        """
        self.ids = tuple(ids)
        self._store, self._distances, self._device = store, distances, device
        self._views = {} if embeddings is None else {IDENTITY: embeddings, **(views or {})}
        self._followers = {name: MaskFollower.of(view.described) for name, view in (views or {}).items()}
        self._rows = row_numbers(store, self.ids)
        self._in_memory: dict[str, list[Row]] = {}
        preload_device = choose_preload_device(self._n_bytes, preload, device) if self.ids else None
        if preload_device is not None:
            self._preload(preload_device)

    @property
    def side_px(self) -> int:
        """Side of the prepared images in pixels."""
        return int(self._store.preparation["side_px"])

    @property
    def in_memory(self) -> bool:
        """Whether the rows are kept in memory."""
        return bool(self._in_memory)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Row:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Row]:
        """Several rows at once, as torch's loaders ask for them."""
        return self.read(indices, [IDENTITY] * len(indices))

    def read(self, indices: Sequence[int], views: Sequence[str]) -> list[Row]:
        """Several rows at once, each with embedding, image and masks of its view; a turned image and masks are not."""
        if self._in_memory:
            return [self._in_memory[view][index] for index, view in zip(indices, views, strict=True)]
        return self._with_embeddings(self._samples(indices), indices, views, pinned=self._device.type == "cuda")

    def _samples(self, indices: Sequence[int]) -> list[Row]:
        """Rows without their embeddings."""
        samples = self._store.read_samples([self._rows[index] for index in indices])
        if not self._distances:
            return [Row(sample, None) for sample in samples]
        return parallel_map(lambda sample: Row(sample, None, _distance(sample)), samples)

    def _with_embeddings(
        self, rows: Sequence[Row], indices: Sequence[int], views: Sequence[str], *, pinned: bool
    ) -> list[Row]:
        """The rows with the embeddings of their views, all in one block, and the views' images if they have any."""
        if not self._views or not rows:
            return list(rows)
        block = host_tensor((len(rows), *EMBEDDING_SHAPE), self._views[IDENTITY].format.dtype, pinned=pinned)
        values = block.numpy()

        def read(i: int) -> Row:
            view, row = self._views[views[i]], rows[i]
            stored = view.read_stored([self._rows[indices[i]]], out=view.allocate(1, values=values[i : i + 1]))
            row = self._with_masks(row, views[i])
            sample = row.sample if stored.images is None else replace(row.sample, image=stored.images[0])
            scale = None if stored.scale is None else stored.scale[0]
            return replace(row, sample=sample, embedding=stored.values[0], scale=scale, block=block)

        return parallel_map(read, range(len(rows)))

    def _with_masks(self, row: Row, view: str) -> Row:
        """The row with the masks of a view that crops or covers its image."""
        follower, sample = self._followers.get(view), row.sample
        if follower is None:
            return row
        masks = follower.apply(Masks(sample.instances, sample.ignore, sample.size), sample.id)
        sample = replace(sample, instances=masks.instances, ignore=masks.ignore, size=masks.size)
        return replace(row, sample=sample, distance=_distance(sample) if self._distances else None)

    def _preload(self, device: torch.device) -> None:
        """Read all rows in all views; what the views of a row have in common is in memory once."""
        in_memory: dict[str, list[Row]] = {view: [] for view in self._views or [IDENTITY]}
        for share in batches(range(len(self)), READ_ROWS):
            rows = self._samples(share)
            twins: list[Row | None] = [None] * len(rows)
            for view, own in in_memory.items():
                read = self._with_embeddings(rows, share, [view] * len(rows), pinned=False)
                own += (
                    [replace(row, block=None) for row in read]
                    if device == CPU
                    else [row.on(device, twin) for row, twin in zip(read, twins, strict=True)]
                )
                twins = list(in_memory[IDENTITY][-len(rows) :])
        self._in_memory = in_memory

    def _n_bytes(self) -> int:
        """Upper bound of the size of all rows in all views."""
        return self[0].n_bytes * len(self) * max(len(self._views), 1)


def row_numbers(store: Store, ids: Sequence[str]) -> list[int]:
    """The store's rows of some ids; ConfigError where one is missing or has vanished from the data set."""
    numbers = {info.id: info.row for info in store.table if info.present}
    unknown = [sample_id for sample_id in ids if sample_id not in numbers]
    if unknown:
        raise ConfigError(
            f"{len(unknown)} of {len(ids)} images are no longer in {store.location}; the first is {unknown[0]!r}. "
            f"Put them back and run `{minimal_embed_command(store.location, {})}`."
        )
    return [numbers[sample_id] for sample_id in ids]


def _distance(sample: SampleRow) -> NDArray[np.float32]:
    # without the padding: distances would fall towards it in a nucleus that the image cuts, unlike at other edges
    h, w = content_size(sample.size, len(sample.instances))
    distance = np.zeros(sample.instances.shape, np.float32)
    distance[:h, :w] = distance_map(sample.instances[:h, :w])
    return distance
