"""What an embedding run will take: space before it starts, time once the encoder's pace is known."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nucseg_cache import Store, StoreAccessError
from nucseg_cache.formats import format_named
from nucseg_cache.location import local_path
from nucseg_pipeline.embed.encode import Duration
from nucseg_pipeline.embed.view_target import SIDE_PX, Target

_MIB = 1 << 20


@dataclass(frozen=True)
class Storage:
    """What the embeddings still to make will take on disk."""

    n_embeddings: int
    """Each view of an image counted."""
    n_bytes: int
    """About, by those that are there, else by what is usual for the format."""
    free_bytes: int | None
    """Where the store lies; None for an object store, which does not say."""


Tell = Callable[[Storage | Duration], None]
"""Told what is foreseen."""


def forecast(store: Store, targets: Sequence[Target], missing: Sequence[Sequence[int]]) -> Storage:
    """What the missing rows of each target will take.

    Raises:
        StoreAccessError: more than is free where the store lies.
    """
    usual = _mean_bytes(targets[0]) or format_named(targets[0].embeddings.key.fields["format"]).row_bytes
    n_bytes = sum(
        len(rows) * (_mean_bytes(target) or usual + (SIDE_PX**2 * 3 if target.keeps_images else 0))
        for target, rows in zip(targets, missing, strict=True)
    )
    folder = local_path(store.location)
    free_bytes = shutil.disk_usage(folder).free if folder is not None else None
    needed = Storage(sum(map(len, missing)), round(n_bytes), free_bytes)
    if free_bytes is not None and needed.n_bytes > free_bytes:
        raise StoreAccessError(
            f"the {needed.n_embeddings} embeddings still to make need about {shown_size(needed.n_bytes)}, and "
            f"{shown_size(free_bytes)} are free where {store.location} lies. Free some space there, choose another "
            "place with --cache, or ask for less: --format i8 takes half of f16 and i6 a third, "
            "--limit takes the first images alone."
        )
    return needed


def shown_size(n_bytes: int) -> str:
    """A size for a person: MiB, from a thousand on GiB."""
    mib = n_bytes / _MIB
    return f"{mib:.1f} MiB" if mib < 1000 else f"{mib / 1024:.1f} GiB"


def _mean_bytes(target: Target) -> float:
    """Of a row of the target on disk; 0 where there is none."""
    n_rows, n_bytes = target.embeddings.file_bytes()
    return n_bytes / n_rows if n_rows else 0.0
