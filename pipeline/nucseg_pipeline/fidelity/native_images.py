"""Native images: read as the store knows them, and moved on their own grid for the encoder to see."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nucseg.data import DataSet, content_size
from nucseg.data.files import some
from nucseg.errors import DataError
from nucseg.replay import Motions
from nucseg.replay.coordinate_maps import enlarged, on_grid
from nucseg.views.orientation import PADDING, squared
from nucseg_cache import Store

Image = NDArray[np.uint8]


def read_natives(dataset: DataSet, store: Store, ids: Sequence[str]) -> dict[str, Image]:
    """The native images of some ids, each (H, W, 3), the very ones that the store's embeddings were made from.

    Raises:
        DataError: an image is not in the data set's folder any more, was changed, or cannot be read.
    """
    entries = {entry.id: entry for entry in dataset.entries}
    gone = [one for one in ids if one not in entries]
    if gone:
        raise DataError(
            f"{len(gone)} of {len(ids)} images in {store.location} are not in {dataset.source or dataset.name}: "
            f"{some(gone)}. Name the folder they came from with --source, or run `nucseg embed` again."
        )
    images = {}
    for one in ids:
        images[one], digest = entries[one].read_image()
        if digest != store.info(store.row_of(one)).image_digest:
            raise DataError(
                f"{one} in {dataset.source or dataset.name} is not the image that was embedded: its digest begins with "
                f"{digest.hex()[:8]}, that in {store.location} with "
                f"{store.info(store.row_of(one)).image_digest.hex()[:8]}. Name the folder it came from with --source, "
                "or run `nucseg embed` again."
            )
    return images


def moved_native(image: Image, motions: Motions) -> Image:
    """Pad (H, W, 3) at the bottom right to a square, and move it by the one motion; the rest is `PADDING`.

    Flips and quarter turns move pixels and change none; all else is linear between pixels of the native grid.
    """
    square = squared(image)
    fill = torch.from_numpy(PADDING).float()[:, None, None]
    moved = _on(len(square), motions).apply(torch.from_numpy(square).movedim(-1, 0).float()[None] - fill)[0] + fill
    return np.ascontiguousarray(moved.round().clamp(0, 255).byte().movedim(0, -1).numpy())


def cells_inside(size: tuple[int, int], motions: Motions, grid: int) -> Tensor:
    """Which cells (grid, grid) come from inside an image of native (H, W): neither padding nor beyond the square."""
    h, w = content_size(size, grid)
    content = torch.zeros(1, 1, grid, grid, dtype=torch.bool)
    content[..., :h, :w] = True
    rest = motions if motions.maps is None else replace(motions, maps=on_grid(motions.maps, grid))
    return rest.apply(content, nearest=True)[0, 0]


def _on(side: int, motions: Motions) -> Motions:
    """The same motions on a native grid."""
    if motions.maps is None or motions.maps.shape[1] == side:
        return motions
    return replace(motions, maps=enlarged(motions.maps, side))
