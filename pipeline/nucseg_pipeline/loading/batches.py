"""The order of an epoch, cut into batches."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

READ_ROWS = 16
"""Rows read at once while filling the memory."""


MOST_ROWS_AHEAD = 64
"""Rows read ahead of their use at most, but always a batch: about 160 MiB of float16 embeddings and their images."""


T = TypeVar("T")


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


def batches_ahead(shares: Sequence[Sequence[int]]) -> int:
    """How many batches to read before they are used: the memory that they take is bounded."""
    return max(1, MOST_ROWS_AHEAD // max(map(len, shares), default=1))
