"""An image with its true nuclei and a prediction, all on the pixel grid that scores are computed on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from math import hypot
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nucseg.data import Entry, Sample, restore
from nucseg.data.conversion import conversion_of
from nucseg.data.files import some
from nucseg.errors import ConfigError
from nucseg.metrics.instances import InstanceMap
from nucseg.nuclei.instances import InstanceRule, separate
from nucseg_cache import RowInfo, SampleRow, Store
from nucseg_pipeline.config.report import GRIDS
from nucseg_pipeline.datasets.locate import open_source
from nucseg_pipeline.modelling.inference import Prediction

PREPARED, NATIVE, TILES = GRIDS
"""Values of `--grid`: the prepared images, the source's own masks, and these with images predicted by tiles."""

Map = NDArray[np.float32]
Pixels = tuple[NDArray[np.uint8], NDArray[np.int32], NDArray[np.bool_]]
"""Image, instances and ignored pixels."""


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
    probability: Map
    """(H, W), probability of nucleus."""
    distance: Map | None = None
    """(H, W), predicted relative distance to the border of the nucleus; None if the network has no such output."""
    separated: InstanceMap | None = None
    """(H, W), predicted nuclei where they were separated with the prediction, as by tiles; else None."""
    scale: float
    """Side of a pixel of the grid that the run was trained on, in pixels of this grid."""
    diagonal_px: float
    """Diagonal of the image in pixels of this grid."""

    @classmethod
    def of(
        cls,
        row: RowInfo | SampleRow,
        pixels: Pixels,
        probability: Map,
        distance: Map | None,
        *,
        scale: float,
        separated: InstanceMap | None = None,
    ) -> ScoredImage:
        """The image of a store's row, with its pixels and its prediction on one grid."""
        image, instances, ignore = pixels
        return cls(
            id=row.id,
            group=row.group,
            stratum=row.stratum,
            image_digest=row.image_digest,
            mask_digest=row.mask_digest,
            image=image,
            instances=instances,
            ignore=ignore,
            probability=probability,
            distance=distance,
            separated=separated,
            scale=scale,
            diagonal_px=hypot(*instances.shape),
        )

    def predicted(self, rule: InstanceRule) -> InstanceMap:
        """(H, W), predicted nuclei by a run's rule, whose lengths and areas are scaled to this grid."""
        if self.separated is not None:
            return self.separated
        return separate(self.probability, rule.scaled(self.scale), self.distance)


Grid = Callable[[Prediction], ScoredImage]
"""Resamples a prediction to the grid that scores are computed on, and adds the true nuclei."""


def prepared_grid(prediction: Prediction) -> ScoredImage:
    """Score on the prepared image that the run was trained on, without its padding."""
    sample, content = prediction.sample, prediction.content
    pixels = sample.image[content], sample.instances[content], sample.ignore[content]
    return _scored(prediction, pixels, lambda values: values[content], scale=1.0)


def _on_native_grid(prediction: Prediction, entries: Mapping[str, Entry]) -> ScoredImage:
    prepared = prediction.sample
    sample = read_unchanged(entries[prepared.id], prepared)
    scale = max(prepared.size) / len(prediction.probability)
    pixels = sample.image, sample.instances, sample.ignore
    return _scored(prediction, pixels, lambda values: restore(values, prepared.size), scale)


def _scored(prediction: Prediction, pixels: Pixels, resample: Callable[[Map], Map], scale: float) -> ScoredImage:
    distance = None if prediction.distance is None else resample(prediction.distance)
    return ScoredImage.of(prediction.sample, pixels, resample(prediction.probability), distance, scale=scale)


def native_grid(store: Store, ids: tuple[str, ...], source: Path | None) -> Grid:
    """Score at the size of the source images: predictions are resampled, masks are read from the source.

    Raises as `native_entries`, and, when an image is scored, as `read_unchanged`.
    """
    return partial(_on_native_grid, entries=native_entries(store, store.dataset, ids, source))


def native_entries(store: Store, dataset_name: str, ids: tuple[str, ...], source: Path | None) -> dict[str, Entry]:
    """Id -> original image and masks, in the folder they were embedded from, or in `source`; nothing is decoded yet.

    Raises:
        ConfigError: the folder is gone, or some of the images are not in it.
        DataError: the folder does not have the data set's layout.
    """
    dataset = open_source(dataset_name, source, store.source, conversion_of(store.preparation))
    entries = {entry.id: entry for entry in dataset.entries}
    missing = [image_id for image_id in ids if image_id not in entries]
    if missing:
        raise ConfigError(
            f"{len(missing)} of {len(ids)} images are not in {dataset.source or dataset.name}: {some(missing)}. "
            "Scores at native size need the images and masks that were embedded. Give their folder with --source DIR, "
            "or score on the 256 px grid."
        )
    return entries


def read_unchanged(entry: Entry, stored: SampleRow | RowInfo) -> Sample:
    """Decode an original image and its masks.

    Raises:
        ConfigError: they are not those in the store.
        DataError: a file cannot be read.
    """
    sample, *digests = entry.read()
    if digests != [stored.image_digest, stored.mask_digest]:
        raise ConfigError(
            f"{stored.id} has changed since it was embedded: its image or masks differ from those in the store. "
            "Restore the old files, or embed the new ones and train again."
        )
    return sample


def grid_name(grid: str, side_px: int) -> str:
    """A grid as reports name it."""
    return {PREPARED: f"{side_px} px grid", NATIVE: "native grid", TILES: "native grid, by tiles"}[grid]
