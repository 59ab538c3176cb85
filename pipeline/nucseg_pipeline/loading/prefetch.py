"""Reading in another thread while a network computes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from nucseg_pipeline.loading.batch import Row
from nucseg_pipeline.loading.dataset import EmbeddingDataset

T = TypeVar("T")
R = TypeVar("R")

MAX_ROWS_AHEAD = 64
"""Rows read ahead at most, but always one batch: about 160 MiB of float16 embeddings and their images."""


def prefetch(make: Callable[[T], R], items: Iterable[T], *, depth: int = 1) -> Iterator[R]:
    """Yield make(item) for each item in order; up to `depth` results are computed ahead.

    One thread computes them, one after the other, so `make` need not be thread-safe.
    """
    pending: deque[Future[R]] = deque()
    with ThreadPoolExecutor(1) as executor:
        try:
            for item in items:
                pending.append(executor.submit(make, item))
                if len(pending) > depth:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:  # the caller stopped early
                future.cancel()


def prefetch_depth(batches: Sequence[Sequence[int]]) -> int:
    """How many batches to read ahead, so that the memory they take is bounded."""
    return max(1, MAX_ROWS_AHEAD // max(map(len, batches), default=1))


def stream(rows: EmbeddingDataset, batches: Sequence[Sequence[int]]) -> Iterator[list[Row]]:
    """The rows of each batch, read ahead unless they are in memory."""
    if rows.in_memory:
        return map(rows.__getitems__, batches)
    return prefetch(rows.__getitems__, batches, depth=prefetch_depth(batches))
