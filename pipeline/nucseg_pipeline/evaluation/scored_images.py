"""An image on the grid that it is scored on: what is true there, and what a run says of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import hypot
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nucseg.data import Entry, restore
from nucseg.data.files import some
from nucseg.errors import ConfigError
from nucseg_cache import Store
from nucseg_pipeline.datasets.locate import open_source
from nucseg_pipeline.modelling.inference import Prediction

NATIVE = "native"
"""Name of the grid that the source's own masks are on."""


@dataclass(frozen=True, eq=False, kw_only=True)
class ScoredImage:
    """An image, its truth and the prediction of one run, all on one grid of (H, W) pixels."""

    id: str
    group: str
    stratum: str
    image_digest: bytes
    """SHA-256 of the image's file content."""
    mask_digest: bytes
    """SHA-256 of the masks' file content."""
    image: NDArray[np.uint8]
    """(H, W, 3), RGB."""
    instances: NDArray[np.int32]
    """(H, W), true nuclei, 0 = background."""
    ignore: NDArray[np.bool_]
    """(H, W), pixels that count in nothing, such as vague areas."""
    probability: NDArray[np.float32]
    """(H, W) of nucleus."""
    distance: NDArray[np.float32] | None = None
    """(H, W) how far inside its nucleus a pixel lies; None if the network does not say."""
    scale: float
    """Pixels of this grid to one pixel of the grid that the run was trained on, a side."""
    diagonal_px: float
    """Diagonal of the image on this grid."""


Grid = Callable[[Prediction], ScoredImage]
"""Brings a prediction and its truth to the grid that they are scored on."""


def prepared_grid(prediction: Prediction) -> ScoredImage:
    """The grid of the prepared images, which the run was trained on, without their padding."""
    sample, content = prediction.sample, prediction.content
    instances = sample.instances[content]
    return ScoredImage(
        id=sample.id,
        group=sample.group,
        stratum=sample.stratum,
        image_digest=sample.image_digest,
        mask_digest=sample.mask_digest,
        image=sample.image[content],
        instances=instances,
        ignore=sample.ignore[content],
        probability=prediction.probability[content],
        distance=None if prediction.distance is None else prediction.distance[content],
        scale=1.0,
        diagonal_px=hypot(*instances.shape),
    )


@dataclass(frozen=True, eq=False)
class NativeGrid:
    """The grid of the images as they are found: probabilities are brought there, the truth is read from the source."""

    entries: Mapping[str, Entry]

    def __call__(self, prediction: Prediction) -> ScoredImage:
        """Read an image and its masks, and bring the prediction to their size.

        Raises:
            ConfigError: they are not what the store was made from.
            DataError: they cannot be read.
        """
        prepared = prediction.sample
        sample, *digests = self.entries[prepared.id].read()
        if digests != [prepared.image_digest, prepared.mask_digest]:
            raise ConfigError(
                f"{prepared.id} has changed since it was embedded: the image or its masks are others than those of the "
                "store. Put the old ones back, or run `nucseg embed` and train anew."
            )
        return ScoredImage(
            id=prepared.id,
            group=prepared.group,
            stratum=prepared.stratum,
            image_digest=prepared.image_digest,
            mask_digest=prepared.mask_digest,
            image=sample.image,
            instances=sample.instances,
            ignore=sample.ignore,
            probability=restore(prediction.probability, prepared.size),
            distance=None if prediction.distance is None else restore(prediction.distance, prepared.size),
            scale=max(prepared.size) / len(prediction.probability),
            diagonal_px=hypot(*prepared.size),
        )


def native_grid(store: Store, ids: tuple[str, ...], source: Path | None) -> NativeGrid:
    """Find the images of a store where they were embedded from, or in `source`; nothing is decoded yet.

    Raises:
        ConfigError: the folder is not there any more, or some of the images are not in it.
        DataError: it is not what the data set's layout says.
    """
    dataset = open_source(store.dataset, source, store.source)
    entries = {entry.id: entry for entry in dataset.entries}
    missing = [one for one in ids if one not in entries]
    if missing:
        raise ConfigError(
            f"{len(missing)} of {len(ids)} images are not in {dataset.source or dataset.name}: {some(missing)}. "
            "The native grid needs the images and masks that were embedded: name their folder with --source DIR, or "
            "score on the 256 px grid."
        )
    return NativeGrid(entries)
