"""Read native images, and move them on their own pixel grid before they are encoded."""

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


def read_natives(dataset: DataSet, store: Store, ids: Sequence[str], embed: str) -> dict[str, Image]:
    """Read native images (H, W, 3) by id and check that they are those that were embedded.

    Args:
        dataset: where they are.
        store: holds their digests.
        ids: which images.
        embed: the command that embeds them again, for messages.

    Raises:
        DataError: an image is no longer in the data set's folder, was changed, or cannot be read.
    """
    entries = {entry.id: entry for entry in dataset.entries}
    gone = [image_id for image_id in ids if image_id not in entries]
    if gone:
        raise DataError(
            f"{len(gone)} of {len(ids)} images in {store.location} are not in {dataset.source or dataset.name}: "
            f"{some(gone)}. Name the folder they came from with --source, or run `{embed}`."
        )
    images = {}
    for image_id in ids:
        images[image_id], digest = entries[image_id].read_image()
        expected = store.info(store.row_of(image_id)).image_digest
        if digest != expected:
            raise DataError(
                f"{image_id} in {dataset.source or dataset.name} is not the image that was embedded: its digest begins "
                f"with {digest.hex()[:8]}, that in {store.location} with {expected.hex()[:8]}. Name the folder it came "
                f"from with --source, or run `{embed}`."
            )
    return images


def moved_native(image: Image, motions: Motions) -> Image:
    """Pad (H, W, 3) at the bottom right to a square and apply one motion; uncovered pixels become `PADDING`.

    Flips and quarter turns are exact; other motions interpolate linearly on the native grid.
    """
    square = squared(image)
    fill = torch.from_numpy(PADDING).float()[:, None, None]
    moved = _on(len(square), motions).apply(torch.from_numpy(square).movedim(-1, 0).float()[None] - fill)[0] + fill
    return np.ascontiguousarray(moved.round().clamp(0, 255).byte().movedim(0, -1).numpy())


def cells_inside(size: tuple[int, int], motions: Motions, grid: int) -> Tensor:
    """A mask (grid, grid) of the cells that come from inside an image of native (H, W), not from padding."""
    h, w = content_size(size, grid)
    content = torch.zeros(1, 1, grid, grid, dtype=torch.bool)
    content[..., :h, :w] = True
    rest = motions if motions.maps is None else replace(motions, maps=on_grid(motions.maps, grid))
    return rest.apply(content, nearest=True)[0, 0]


def _on(side: int, motions: Motions) -> Motions:
    if motions.maps is None or motions.maps.shape[1] == side:
        return motions
    return replace(motions, maps=enlarged(motions.maps, side))
