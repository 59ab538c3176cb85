"""An image with its true nuclei and a prediction, all on the pixel grid that scores are computed on."""

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
"""Name of the grid of the source's own masks."""


@dataclass(frozen=True, eq=False, kw_only=True)
class ScoredImage:
    """An image, its true nuclei and the prediction of one run, on one grid of (H, W) pixels."""

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
    """(H, W), true nuclei; 0 is background."""
    ignore: NDArray[np.bool_]
    """(H, W), pixels that no metric counts, such as vague areas."""
    probability: NDArray[np.float32]
    """(H, W), probability of nucleus."""
    distance: NDArray[np.float32] | None = None
    """(H, W), predicted relative distance to the border of the nucleus; None if the network has no such output."""
    scale: float
    """Side of a pixel of the grid that the run was trained on, in pixels of this grid."""
    diagonal_px: float
    """Diagonal of the image in pixels of this grid."""


Grid = Callable[[Prediction], ScoredImage]
"""Resamples a prediction to the grid that scores are computed on, and adds the true nuclei."""


def prepared_grid(prediction: Prediction) -> ScoredImage:
    """Score on the prepared image that the run was trained on, without its padding."""
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
    """Score at the size of the source images: predictions are resampled, masks are read from the source."""

    entries: Mapping[str, Entry]

    def __call__(self, prediction: Prediction) -> ScoredImage:
        """Read an image and its masks, and resample the prediction to their size.

        Raises:
            ConfigError: image or masks are not those that the store was made from.
            DataError: a file cannot be read.
        """
        prepared = prediction.sample
        sample, *digests = self.entries[prepared.id].read()
        if digests != [prepared.image_digest, prepared.mask_digest]:
            raise ConfigError(
                f"{prepared.id} has changed since it was embedded: its image or masks differ from those in the store. "
                "Restore the old files, or run `nucseg embed` and train again."
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
    """Locate the images of a store in the folder they were embedded from, or in `source`; nothing is decoded yet.

    Raises:
        ConfigError: the folder is gone, or some of the images are not in it.
        DataError: the folder does not have the data set's layout.
    """
    dataset = open_source(store.dataset, source, store.source)
    entries = {entry.id: entry for entry in dataset.entries}
    missing = [image_id for image_id in ids if image_id not in entries]
    if missing:
        raise ConfigError(
            f"{len(missing)} of {len(ids)} images are not in {dataset.source or dataset.name}: {some(missing)}. "
            "The native grid needs the images and masks that were embedded. Give their folder with --source DIR, or "
            "score on the 256 px grid."
        )
    return NativeGrid(entries)
