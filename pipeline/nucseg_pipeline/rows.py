"""The torch Dataset over a store, and the batches that a network is shown."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from nucseg.data import content_size
from nucseg.errors import ConfigError
from nucseg.instances import distance_map
from nucseg_cache import Embeddings, SampleRow, Store
from nucseg_cache.formats import EMBEDDING_SHAPE
from nucseg_cache.reading import side_by_side
from nucseg_pipeline.ahead import ahead
from nucseg_pipeline.batch import CPU, Row, host_tensor
from nucseg_pipeline.memory import place_to_keep

READ_ROWS = 16
"""Rows read at once while filling the memory."""

MOST_ROWS_AHEAD = 64
"""Rows read ahead of their use at most, but always a batch: about 160 MiB of float16 embeddings and their images."""

IDENTITY = "identity"
"""The view that is the image as it lies in the data set."""

T = TypeVar("T")


class Rows(Dataset[Row]):
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
        place = place_to_keep(self._n_bytes, preload, device) if self.ids else None
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
        return side_by_side(lambda sample: Row(sample, None, _distance(sample)), samples)

    def _seen(self, rows: Sequence[Row], indices: Sequence[int], views: Sequence[str], *, pinned: bool) -> list[Row]:
        """The rows with the embedding of a view each, all in one block, and its image where that is another."""
        if not self._views or not rows:
            return list(rows)
        block = host_tensor((len(rows), *EMBEDDING_SHAPE), self._views[IDENTITY].format.dtype, pinned=pinned)
        values = block.numpy()

        def seen(i: int) -> Row:
            view, row = self._views[views[i]], rows[i]
            stored = view.read_stored([self._rows[indices[i]]], out=view.room(1, values=values[i : i + 1]))
            sample = row.sample if stored.images is None else replace(row.sample, image=stored.images[0])
            scale = None if stored.scale is None else stored.scale[0]
            return replace(row, sample=sample, embedding=stored.values[0], scale=scale, block=block)

        return side_by_side(seen, range(len(rows)))

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


def epoch_order(ids: Sequence[str], seed: int, epoch: int) -> list[int]:
    """The order in which an epoch visits the ids: a function of seed, epoch and id, so nothing need be saved.

    Adding an image leaves the others in the same order to one another.
    """
    return sorted(range(len(ids)), key=lambda i: hashlib.blake2b(f"{seed}/{epoch}/{ids[i]}".encode()).digest())


def batches(order: Sequence[int], batch_size: int, *, process: int = 0, n_processes: int = 1) -> list[list[int]]:
    """Cut an order into batches of `batch_size` and take one process's share of each.

    Every process gets equally many rows of every batch; where that does not come out even, the first rows of the
    batch are shown twice.
    """
    shares = []
    for first in range(0, len(order), batch_size):
        whole = list(order[first : first + batch_size])
        padding = -len(whole) % n_processes
        shares.append((whole + whole * n_processes)[: len(whole) + padding][process::n_processes])
    return shares


def spread_evenly(items: Sequence[T], most: int) -> list[T]:
    """So many of the items, the first and the last among them, evenly spread; all where there are no more."""
    if len(items) <= most:
        return list(items)
    return [items[position] for position in np.linspace(0, len(items) - 1, most).astype(int)]


def stream(rows: Rows, shares: Sequence[Sequence[int]]) -> Iterator[list[Row]]:
    """The rows of each batch; unless they are in memory, the next ones are read while the last are used."""
    if rows.in_memory:
        return map(rows.__getitems__, shares)
    return ahead(rows.__getitems__, shares, depth=batches_ahead(shares))


def batches_ahead(shares: Sequence[Sequence[int]]) -> int:
    """How many batches to read before they are used: the memory that they take is bounded."""
    return max(1, MOST_ROWS_AHEAD // max(map(len, shares), default=1))
