"""Estimates of an embedding run: disk space before it starts, time once the encoder's speed is known."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nucseg_cache import Store, StoreAccessError
from nucseg_cache.formats import format_named
from nucseg_cache.location import local_path
from nucseg_pipeline.embed.view_target import SIDE_PX, ViewTarget

_MIB = 1 << 20


@dataclass(frozen=True)
class DiskEstimate:
    """Disk space of the missing embeddings."""

    n_embeddings: int
    """Each view of an image counts as one."""
    n_bytes: int
    """Estimated from the embeddings that are stored, else from the usual size in the format."""
    free_bytes: int | None
    """Free where the store is; None for an object store, which does not report it."""


@dataclass(frozen=True)
class TimeEstimate:
    """Time that the missing embeddings take, measured without the first batch, which warms up."""

    n_left: int
    seconds: float


OnEstimate = Callable[[DiskEstimate | TimeEstimate], None]
"""Called with each estimate as soon as it is known."""


def estimate_disk(store: Store, targets: Sequence[ViewTarget], missing: Sequence[Sequence[int]]) -> DiskEstimate:
    """Estimate the disk space of the missing rows of each target.

    Raises:
        StoreAccessError: it is more than what is free where the store is.
    """
    usual = _mean_bytes(targets[0]) or format_named(targets[0].embeddings.key.fields["format"]).row_bytes
    n_bytes = sum(
        len(rows) * (_mean_bytes(target) or usual + (SIDE_PX**2 * 3 if target.keeps_images else 0))
        for target, rows in zip(targets, missing, strict=True)
    )
    folder = local_path(store.location)
    free_bytes = shutil.disk_usage(folder).free if folder is not None else None
    estimate = DiskEstimate(sum(map(len, missing)), round(n_bytes), free_bytes)
    if free_bytes is not None and estimate.n_bytes > free_bytes:
        raise StoreAccessError(
            f"The {estimate.n_embeddings} missing embeddings need about {format_size(estimate.n_bytes)}, but only "
            f"{format_size(free_bytes)} are free at {store.location}. Free some space, choose another disk with "
            "--cache, or store less: --format i8 needs half the space of f16, i6 a third, and --limit embeds only the "
            "first images."
        )
    return estimate


def format_size(n_bytes: int) -> str:
    """A size in MiB, or in GiB from 1000 MiB on."""
    mib = n_bytes / _MIB
    return f"{mib:.1f} MiB" if mib < 1000 else f"{mib / 1024:.1f} GiB"


def _mean_bytes(target: ViewTarget) -> float:
    """Mean size of a stored row of the target; 0 if there is none."""
    n_rows, n_bytes = target.embeddings.file_bytes()
    return n_bytes / n_rows if n_rows else 0.0
