"""The torch Dataset over a store, and the batches that a network is shown."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from nucseg.data import content_size
from nucseg.errors import ConfigError
from nucseg.instances import distance_map
from nucseg_cache import Embeddings, SampleRow, Store

READ_ROWS = 16
"""Rows read at once while filling the memory."""

IDENTITY = "identity"
"""The view that is the image as it lies in the data set."""

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, eq=False)
class Row:
    """One sample and its embedding, as read from the store."""

    sample: SampleRow
    embedding: NDArray[np.floating] | None
    """(256, 64, 64) float16 or float32; None without guidance."""
    distance: NDArray[np.float32] | None = None
    """(H, W), see `nucseg.instances.distance_map`, 0 in the padding; None where no network learns it."""

    @property
    def n_bytes(self) -> int:
        """What the row takes in memory."""
        arrays = (self.sample.image, self.sample.instances, self.sample.ignore, self.embedding, self.distance)
        return sum(array.nbytes for array in arrays if array is not None)


@dataclass(frozen=True, eq=False)
class Batch:
    """Some rows as tensors on one device."""

    ids: tuple[str, ...]
    image: Tensor
    """(B, 3, H, W) float32 in [0, 1]."""
    target: Tensor
    """(B, H, W) int64, 1 where a nucleus is."""
    ignore: Tensor
    """(B, H, W) bool, True where a pixel counts in nothing."""
    embedding: Tensor | None
    """(B, 256, 64, 64) float16 or float32 as stored; None without guidance."""
    distance: Tensor | None = None
    """(B, H, W) float32, how far inside its nucleus a pixel lies; None where no network learns it."""

    def to(self, device: torch.device) -> Batch:
        """The same batch on a device."""
        return Batch(
            ids=self.ids,
            image=self.image.to(device),
            target=self.target.to(device),
            ignore=self.ignore.to(device),
            embedding=None if self.embedding is None else self.embedding.to(device),
            distance=None if self.distance is None else self.distance.to(device),
        )


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
    ) -> None:
        """Open the rows.

        Args:
            store: Where the samples are.
            embeddings: The embeddings that guide, or None.
            ids: Which rows, in which order.
            views: The exact views that `read` can be asked for beside the identity.
            preload: on, off, or auto: on when the rows fit in half of the memory that is free.
            distances: whether to compute the distance map of each row's true nuclei.
        """
        self.ids = tuple(ids)
        self._store, self._distances = store, distances
        self._views = {} if embeddings is None else {IDENTITY: embeddings, **(views or {})}
        self._rows = row_numbers(store, self.ids)
        self._kept: dict[str, list[Row]] = {}
        if preload == "on" or (preload == "auto" and self._fits()):
            self._keep()

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
        samples = self._store.read_samples([self._rows[index] for index in indices])
        return [self._row(*one) for one in zip(indices, samples, views, strict=True)]

    def _row(self, index: int, sample: SampleRow, view: str) -> Row:
        row = Row(sample, None, _distance(sample) if self._distances else None)
        return self._seen_as(view, index, row) if self._views else row

    def _keep(self) -> None:
        """Read all rows in all views; what the views of a row have in common is in memory once."""
        shares = batches(range(len(self)), READ_ROWS)
        first = [row for share in shares for row in self.__getitems__(share)]
        others = [view for view in self._views if view != IDENTITY]
        kept = {view: [self._seen_as(view, index, row) for index, row in enumerate(first)] for view in others}
        self._kept = {IDENTITY: first, **kept}

    def _seen_as(self, view: str, index: int, row: Row) -> Row:
        values, images = self._views[view].read_shown([self._rows[index]])
        sample = row.sample if images is None else replace(row.sample, image=images[0])
        return replace(row, sample=sample, embedding=values[0])

    def _fits(self) -> bool:
        n_views = max(len(self._views), 1)
        return bool(self.ids) and self[0].n_bytes * len(self) * n_views < free_memory_bytes() / 2


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


def collate(rows: Sequence[Row]) -> Batch:
    """Stack rows into a batch on the CPU."""
    image = np.stack([row.sample.image for row in rows]).transpose(0, 3, 1, 2)
    target = np.stack([row.sample.instances > 0 for row in rows])
    embeddings = [row.embedding for row in rows if row.embedding is not None]
    distances = [row.distance for row in rows if row.distance is not None]
    return Batch(
        ids=tuple(row.sample.id for row in rows),
        image=torch.from_numpy(np.ascontiguousarray(image)).float() / 255,
        target=torch.from_numpy(target).long(),
        ignore=torch.from_numpy(np.stack([row.sample.ignore for row in rows])),
        embedding=torch.from_numpy(np.stack(embeddings)) if embeddings else None,
        distance=torch.from_numpy(np.stack(distances)) if distances else None,
    )


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


def stream(rows: Rows, shares: Iterable[Sequence[int]]) -> Iterator[list[Row]]:
    """The rows of each batch; unless they are in memory, the next batch is read while the last one is used."""
    return map(rows.__getitems__, shares) if rows.in_memory else ahead(rows.__getitems__, shares)


def ahead(make: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """What is made of each item, in order; the next one is made while the last one is used."""
    with ThreadPoolExecutor(1) as maker:
        coming: Future[R] | None = None
        for item in items:
            behind, coming = coming, maker.submit(make, item)
            if behind is not None:
                yield behind.result()
        if coming is not None:
            yield coming.result()


def free_memory_bytes() -> int:
    """Memory that can be had without taking it from others, in bytes; if unknown, a quarter of what is built in."""
    with contextlib.suppress(OSError, StopIteration):
        # what the page cache holds can be had too, so Linux' own estimate is better than the count of free pages
        lines = Path("/proc/meminfo").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("MemAvailable:")).split()[1]) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 4
