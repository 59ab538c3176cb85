"""The order of an epoch, cut into batches."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

READ_ROWS = 16
"""Rows read at once outside an epoch: to preload them, or to average over them."""

T = TypeVar("T")


def epoch_order(ids: Sequence[str], seed: int, epoch: int) -> list[int]:
    """The order in which an epoch visits the ids: a function of seed, epoch and id, so nothing need be saved.

    Adding an image leaves the others in the same order to one another.
    """
    return sorted(range(len(ids)), key=lambda i: hashlib.blake2b(f"{seed}/{epoch}/{ids[i]}".encode()).digest())


def batches(order: Sequence[int], batch_size: int, *, process: int = 0, n_processes: int = 1) -> list[list[int]]:
    """Cut an order into batches of `batch_size`, and take the share of one process from each.

    Every process gets equally many rows of every batch; where they cannot be divided evenly, the first rows of the
    batch are used twice.
    """
    shares = []
    for first in range(0, len(order), batch_size):
        whole = list(order[first : first + batch_size])
        padding = -len(whole) % n_processes
        shares.append((whole + whole * n_processes)[: len(whole) + padding][process::n_processes])
    return shares


def spread_evenly(items: Sequence[T], most: int) -> list[T]:
    """At most this many of the items, evenly spread from the first to the last; all where there are no more."""
    if len(items) <= most:
        return list(items)
    return [items[position] for position in np.linspace(0, len(items) - 1, most).astype(int)]
