"""Which rows get an embedding in which view, and where it is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import xxhash
from numpy.typing import NDArray

from nucseg.data import Entry
from nucseg.views import View
from nucseg_cache import Embeddings, Key, Store, ViewDiffers

SIDE_PX = 256
"""Side of a prepared sample in pixels."""


@dataclass(frozen=True, eq=False)
class ViewTarget:
    """The embeddings of one view, and the rows that need one."""

    embeddings: Embeddings
    wanted: frozenset[int]
    """Rows that must have an embedding in this view."""
    view: View | None = None
    """None for the unchanged image."""

    @property
    def name(self) -> str:
        """The view's name in the store."""
        return self.embeddings.view

    @property
    def keeps_images(self) -> bool:
        """Whether the prepared images of the view are stored with their embeddings."""
        return self.view is not None and self.view.has_own_image

    def missing(self, within: range | None = None) -> list[int]:
        """The wanted rows that have no embedding in this view, or a damaged one."""
        return [row for row in self.embeddings.missing(within, sizes=True) if row in self.wanted]

    def apply(self, image: NDArray[np.uint8], sample_id: str) -> NDArray[np.uint8]:
        """An image (H, W, 3) in this view."""
        return image if self.view is None else self.view.apply(image, sample_id)


def view_targets(
    store: Store,
    key: Key,
    recorded: Mapping[str, str],
    views: Sequence[View],
    wanted: Mapping[int, Entry],
    n_view_images: int | None,
) -> list[ViewTarget]:
    """The target of the unchanged images, then one for each view.

    Args:
        store: opened for writing.
        key: of the embeddings.
        recorded: provenance, written when the key is created.
        views: the exact views.
        wanted: row -> its entry in the data set.
        n_view_images: of how many images the views are made; None for all.
    """
    chosen = _chosen(wanted, n_view_images)
    of_views = [
        ViewTarget(
            store.embeddings(key, view.name, recorded=recorded, described=view.described, images=view.has_own_image),
            chosen,
            view,
        )
        for view in views
    ]
    return [ViewTarget(store.embeddings(key, recorded=recorded), frozenset(wanted)), *of_views]


def missing_rows(targets: Sequence[ViewTarget]) -> list[list[int]]:
    """The missing rows of each target.

    Raises:
        ViewDiffers: the store holds views that were made in another way; the message lists all of them.
    """
    missing: list[list[int]] = []
    differing: list[ViewDiffers] = []
    for target in targets:
        try:
            missing.append(target.missing())
        except ViewDiffers as error:
            differing.append(error)
    if differing:
        more = [line for error in differing[1:] for line in str(error).splitlines()[-1:]]
        raise ViewDiffers("\n".join([str(differing[0]), *(f"Another view differs too. {line}" for line in more)]))
    return missing


def _chosen(wanted: Mapping[int, Entry], n_images: int | None) -> frozenset[int]:
    """The rows of which views are made: all, or `n_images` drawn by their ids alone, so that a larger number adds."""
    drawn = sorted(wanted, key=lambda row: xxhash.xxh3_64_intdigest(f"view/{wanted[row].id}".encode()))
    return frozenset(drawn[:n_images])
