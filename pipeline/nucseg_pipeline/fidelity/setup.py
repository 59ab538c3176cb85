"""What a measurement is made on: the store, the images of both parts, and what replay learns from the training part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import cast

import numpy as np
import torch

from nucseg.data.splits import Split
from nucseg.encoders import Encoder
from nucseg.errors import ConfigError
from nucseg.replay import Motions, fit_mixing, position_pattern
from nucseg.views.registry import D4_VIEWS, IDENTITY
from nucseg_cache import Embeddings, Key, Store
from nucseg_pipeline.config import FidelityConfig
from nucseg_pipeline.datasets.locate import open_source
from nucseg_pipeline.datasets.stores import open_store
from nucseg_pipeline.fidelity.motions import Move
from nucseg_pipeline.fidelity.native_images import Image, read_natives
from nucseg_pipeline.fidelity.references import ImageEmbeddings, ReplayParameters, Told, n_to_encode, orbit
from nucseg_pipeline.loading.batches import READ_ROWS, batches
from nucseg_pipeline.loading.dataset import row_numbers
from nucseg_pipeline.runs.selection import complete_embeddings, find_key, make_split

LEAST_IMAGES = 2
"""Test images without which there is no interval."""


@dataclass(frozen=True, eq=False)
class Bench:
    """Everything that is read before the encoder is needed."""

    config: FidelityConfig
    store: Store
    key: Key
    parts: Split
    views: Mapping[int, Embeddings]
    """Element of D4 -> its exact views."""
    there: Mapping[int, set[str]]
    """Element of D4 -> images of which the exact view is in the store."""
    measured: tuple[str, ...]
    """Test images."""
    calibration: tuple[str, ...]
    """Training images."""
    natives: Mapping[str, Image]

    @classmethod
    def open(cls, config: FidelityConfig) -> Bench:
        """Look everything up, and check what can be checked before anything takes long."""
        store = open_store(config.cache, config.dataset)
        key = cast(Key, find_key(store, config.training))  # None is for trainings without guidance
        parts = make_split(store, config.training)
        measured = _spread(parts.test, config.images, config.seed)
        if len(measured) < LEAST_IMAGES:
            raise ConfigError(
                f"The test part of the protocol {parts.protocol}, fold {config.fold}, holds {len(measured)} of the "
                f"{len(store.table)} images in {store.location}; at least {LEAST_IMAGES} are needed for an interval. "
                "Take another --split, as kfold, or add images."
            )
        complete_embeddings(store, key, (*parts.train, *measured))
        views = {element: store.embeddings(key, view) for element, view in enumerate((IDENTITY, *D4_VIEWS))}
        there = {element: {info.id for info in view.embedded_rows()} for element, view in views.items()}
        calibration = _calibrating(parts.train, set.intersection(*there.values()), config)
        dataset = open_source(config.dataset, config.source, store.source)
        natives = read_natives(dataset, store, (*measured, *calibration))
        return cls(config, store, key, parts, views, there, measured, calibration, natives)

    @property
    def present(self) -> tuple[str, ...]:
        """Images of the store, without those that have vanished from the data set."""
        return tuple(info.id for info in self.store.table if info.present)

    @property
    def groups(self) -> dict[str, str]:
        """Measured image -> its group."""
        return {one: self.store.info(self.store.row_of(one)).group for one in self.measured}

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the numbers has to know."""
        notes = [*self.parts.notes, *self.store.notes, str(self.store.recorded(self.key).get("note", ""))]
        if len(self.measured) < self.config.images:
            notes.append(f"The test part holds {len(self.measured)} images, {self.config.images} were asked for.")
        n_oblong = sum(len(set(self.natives[one].shape[:2])) > 1 for one in self.measured)
        if n_oblong:
            notes.append(
                f"{n_oblong} of {len(self.measured)} images are not square. The store's embeddings are of the images "
                "alone; moved ones were first padded to a square with the colour that the encoder pads with, and their "
                "padding is not counted."
            )
        return tuple(dict.fromkeys(note for note in notes if note))

    def subject(self, one: str) -> ImageEmbeddings:
        """An image with what the store holds of it."""
        row = self.store.row_of(one)
        exact = {element: torch.from_numpy(self.views[element].read([row])[0]) for element in self._known(one)}
        return ImageEmbeddings(self.natives[one], exact)

    def n_exact(self, ids: Sequence[str]) -> int:
        """How many of the images have all their exact views in the store."""
        return sum(all(one in there for there in self.there.values()) for one in ids)

    def drawn(self, moves: Sequence[Move], one: str) -> list[tuple[Move, Motions]]:
        """How an image moves under each move."""
        side = int(self.store.preparation["side_px"])
        return [(move, move.motions(self.config.seed, one, side=side)) for move in moves]

    def n_encodings(self, moves: Sequence[Move]) -> int:
        """How many images go through the encoder in all."""
        calibrating = sum(one not in there for one in self.calibration for there in self.there.values())
        return calibrating + sum(n_to_encode(self.drawn(moves, one), self._known(one)) for one in self.measured)

    def _known(self, one: str) -> set[int]:
        """The elements of D4 of which the store has the exact view of an image."""
        return {element for element, ids in self.there.items() if one in ids}

    def learn(self, encoder: Encoder, told: Told) -> ReplayParameters:
        """Pattern and mixing, from training images alone."""
        rows = row_numbers(self.store, self.parts.train)
        pattern = position_pattern(torch.from_numpy(self.views[0].read(share)) for share in batches(rows, READ_ROWS))
        orbits = (orbit(self.subject(one), encoder, told) for one in self.calibration)
        return ReplayParameters(pattern, fit_mixing(orbits, pattern) if self.calibration else None)


def _spread(ids: Sequence[str], n: int, seed: int) -> tuple[str, ...]:
    """So many ids, one drawn from each of as many equal parts of the list; all where there are no more."""
    if n >= len(ids):
        return tuple(ids)
    random, edges = np.random.default_rng(seed), np.linspace(0, len(ids), n + 1).astype(int)
    return tuple(ids[random.integers(first, last)] for first, last in pairwise(edges))


def _calibrating(train: Sequence[str], exact: set[str], config: FidelityConfig) -> tuple[str, ...]:
    """The training images that calibrate the mixing: first those of which all exact views are in the store."""
    cached = _spread([one for one in train if one in exact], config.calibration_images, config.seed)
    n_more = config.calibration_images - len(cached)
    return (*cached, *_spread([one for one in train if one not in exact], n_more, config.seed))
