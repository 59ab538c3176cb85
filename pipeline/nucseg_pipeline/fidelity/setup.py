"""Open what is measured: the store, test and calibration images; and fit replay to the training part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import cast

import numpy as np
import torch

from nucseg.data import DataSet
from nucseg.data.conversion import conversion_of
from nucseg.data.splits import Split
from nucseg.encoders import Encoder
from nucseg.errors import ConfigError
from nucseg.replay import Motions, fit_mixing, position_pattern
from nucseg.views.registry import D4_VIEWS, IDENTITY
from nucseg_cache import Embeddings, Key, Store
from nucseg_pipeline.config import FidelityConfig
from nucseg_pipeline.config.fidelity import NONE
from nucseg_pipeline.datasets.locate import open_source
from nucseg_pipeline.fidelity.motions import MotionSpec
from nucseg_pipeline.fidelity.native_images import Image, read_natives
from nucseg_pipeline.fidelity.references import (
    ImageEmbeddings,
    OnEncoded,
    ReplayParameters,
    count_encodings,
    orientations,
)
from nucseg_pipeline.loading.batches import READ_ROWS, batches
from nucseg_pipeline.loading.dataset import row_numbers
from nucseg_pipeline.runs.selection import Selection, complete_embeddings, embed_command

MIN_IMAGES = 2
"""The minimum number of test images for an interval."""

FEW_IMAGES = 8
"""With fewer test images, notes warn that the recommendation is uncertain."""


@dataclass(frozen=True, eq=False)
class FidelitySetup:
    """What is measured, opened before the encoder; the calibration images are training images."""

    config: FidelityConfig
    store: Store
    key: Key
    parts: Split
    views: Mapping[int, Embeddings]
    """Element of D4 -> embeddings of its exact views."""
    embedded: Mapping[int, set[str]]
    """Element of D4 -> ids of images with this exact view in the store."""
    measured: tuple[str, ...]
    calibration: tuple[str, ...]
    dataset: DataSet

    @classmethod
    def open(cls, config: FidelityConfig) -> FidelitySetup:
        """Open store and embeddings, and list the images."""
        selection = Selection.open(config.training)
        store, parts = selection.store, selection.split
        key = cast(Key, selection.key)  # None only for trainings without guidance
        measured = _spread(parts.test, config.images, config.seed)
        if len(measured) < MIN_IMAGES:
            raise ConfigError(
                f"The test part of the protocol {parts.protocol}, fold {config.fold}, has {len(measured)} of the "
                f"{len(store.table)} images in {store.location}; at least {MIN_IMAGES} are needed for an interval. "
                "Choose another --split, such as kfold, or add images."
            )
        complete_embeddings(store, key, (*parts.train, *measured), selection.config)
        views = {element: store.embeddings(key, view) for element, view in enumerate((IDENTITY, *D4_VIEWS))}
        embedded = {element: {info.id for info in view.embedded_rows()} for element, view in views.items()}
        exact = set.intersection(*embedded.values())
        calibration = () if config.transforms == (NONE,) else _calibration_images(parts.train, exact, config)
        dataset = open_source(config.dataset, config.source, store.source, conversion_of(store.preparation))
        return cls(config, store, key, parts, views, embedded, measured, calibration, dataset)

    @cached_property
    def natives(self) -> Mapping[str, Image]:
        """The native images, all read when the first is needed, so that a changed one is found before encoding."""
        embed = embed_command(self.store, self.key, self.config.training)
        return read_natives(self.dataset, self.store, (*self.measured, *self.calibration), embed)

    @property
    def present(self) -> tuple[str, ...]:
        """Ids of the store's images that are present in the data set."""
        return tuple(info.id for info in self.store.table if info.present)

    @property
    def groups(self) -> dict[str, str]:
        """Measured image -> its group."""
        return {image_id: self.store.info(self.store.row_of(image_id)).group for image_id in self.measured}

    @property
    def notes(self) -> tuple[str, ...]:
        """Remarks that apply to the results."""
        notes = [*self.parts.notes, *self.store.notes, str(self.store.recorded(self.key).get("note", ""))]
        if len(self.measured) < self.config.images:
            notes.append(f"The test part has {len(self.measured)} images, {self.config.images} were requested.")
        if len(self.measured) < FEW_IMAGES:
            notes.append(
                f"Only {len(self.measured)} images were measured: the intervals are too narrow and the recommendation "
                f"is uncertain. Measure at least {FEW_IMAGES}."
            )
        n_oblong = sum(len(set(self.natives[image_id].shape[:2])) > 1 for image_id in self.measured)
        if n_oblong:
            notes.append(
                f"{n_oblong} of {len(self.measured)} images are not square. The store's embeddings are of the images "
                "alone; moved images were first padded to a square with the encoder's padding colour, and padding is "
                "not counted."
            )
        return tuple(dict.fromkeys(note for note in notes if note))

    def image_embeddings(self, image_id: str) -> ImageEmbeddings:
        """An image with its embeddings in the store."""
        row = self.store.row_of(image_id)
        exact = {element: torch.from_numpy(self.views[element].read([row])[0]) for element in self._known(image_id)}
        return ImageEmbeddings(self.natives[image_id], exact)

    def n_exact(self, ids: Sequence[str]) -> int:
        """How many of the images have all their exact views in the store."""
        return sum(all(image_id in embedded for embedded in self.embedded.values()) for image_id in ids)

    def draw_motions(self, specs: Sequence[MotionSpec], image_id: str) -> list[tuple[MotionSpec, Motions]]:
        """The motion of an image for each spec."""
        side = int(self.store.preparation["side_px"])
        return [(spec, spec.motions(self.config.seed, image_id, side=side)) for spec in specs]

    def n_encodings(self, specs: Sequence[MotionSpec], n_colours: int) -> int:
        """How many images will be encoded in total for these motions and so many changes of colour."""
        calibrating = sum(image_id not in ids for image_id in self.calibration for ids in self.embedded.values())
        return calibrating + sum(
            count_encodings(self.draw_motions(specs, image_id), self._known(image_id)) + n_colours
            for image_id in self.measured
        )

    def _known(self, image_id: str) -> set[int]:
        return {element for element, ids in self.embedded.items() if image_id in ids}

    def fit_replay(self, encoder: Encoder, on_encoded: OnEncoded) -> ReplayParameters:
        """Fit pattern and mixing to training images."""
        rows = row_numbers(self.store, self.parts.train)
        pattern = position_pattern(torch.from_numpy(self.views[0].read(share)) for share in batches(rows, READ_ROWS))
        views = (orientations(self.image_embeddings(image_id), encoder, on_encoded) for image_id in self.calibration)
        return ReplayParameters(pattern, fit_mixing(views, pattern) if self.calibration else None)


def _spread(ids: Sequence[str], n: int, seed: int) -> tuple[str, ...]:
    """Draw one id from each of n equal parts of the list; returns all if there are at most n."""
    if n >= len(ids):
        return tuple(ids)
    random, edges = np.random.default_rng(seed), np.linspace(0, len(ids), n + 1).astype(int)
    return tuple(ids[random.integers(first, last)] for first, last in pairwise(edges))


def _calibration_images(train: Sequence[str], exact: set[str], config: FidelityConfig) -> tuple[str, ...]:
    """Training images to fit the mixing to; those with all exact views in the store come first."""
    cached = _spread([image_id for image_id in train if image_id in exact], config.calibration_images, config.seed)
    n_more = config.calibration_images - len(cached)
    return (*cached, *_spread([image_id for image_id in train if image_id not in exact], n_more, config.seed))
