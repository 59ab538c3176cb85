"""What a student learns from: the images and embeddings of each data set, in all views that there are."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

from nucseg.data.files import some
from nucseg.data.splits import Split
from nucseg.encoders.student.metadata import IMAGE_DIGITS
from nucseg.errors import ConfigError
from nucseg.views import view_names
from nucseg.views.registry import IDENTITY
from nucseg_cache import Embeddings, Key, Store, differences
from nucseg_pipeline.config import DistillConfig
from nucseg_pipeline.datasets.stores import open_store
from nucseg_pipeline.runs.selection import complete_embeddings, find_key, make_split, used_ids, views_option


@dataclass(frozen=True, eq=False)
class Course:
    """One data set: where its images and embeddings are, and which of them are learned."""

    dataset: str
    store: Store
    key: Key
    parts: Split
    embeddings: Embeddings
    """Of the images as they are."""
    views: Mapping[str, Embeddings]
    """Name -> the other views that are shown; each may be there for some images only."""

    @classmethod
    def open(cls, config: DistillConfig, dataset: str, recorded: Sequence[str] | None = None) -> Course:
        """Look everything up, or the views that were recorded; see `distill` for what can be wrong."""
        store = open_store(config.cache, dataset)
        asked = config.training_on(dataset)
        key = cast(Key, find_key(store, asked))  # None is for trainings without guidance
        parts = make_split(store, asked)
        embeddings = complete_embeddings(store, key, used_ids(parts))
        there = store.views(key)
        names = _shown(store, key, config.views) if recorded is None else [one for one in recorded if one in there]
        return cls(dataset, store, key, parts, embeddings, {name: store.embeddings(key, name) for name in names})

    @cached_property
    def _there(self) -> Mapping[str, set[str]]:
        """View -> ids, as they were when first asked for: others may be embedding meanwhile."""
        return {name: {info.id for info in view.embedded_rows()} for name, view in self.views.items()}

    def shown(self, part: Sequence[str]) -> list[tuple[int, str]]:
        """Every view of every image of a part: place of the image in the part, and name of the view."""
        return [
            (place, view)
            for place, one in enumerate(part)
            for view in (IDENTITY, *(name for name, ids in self._there.items() if one in ids))
        ]

    @property
    def teacher(self) -> dict[str, str]:
        """The identity of the encoder that made the embeddings."""
        return {name: value for name, value in self.key.fields.items() if name != "format"}

    @cached_property
    def learned(self) -> dict[str, Any]:
        """What is learned from, as the student's file tells it."""
        digests = {info.id: info.image_digest.hex() for info in self.store.table if info.present}
        parts = {"train": self.parts.train, "validation": self.parts.validation, "test": self.parts.test}
        told = [[[one, digests[one]] for one in ids] for ids in parts.values()]
        shown = self.shown(self.parts.train)
        return {
            "protocol": self.parts.protocol,
            **{f"n_{name}": len(ids) for name, ids in parts.items()},
            "n_shown": len(shown),
            "views": {name: dict(view.described) for name, view in self.views.items()},
            "embeddings": self.key.hash,
            "inputs": hashlib.sha256(json.dumps([told, shown]).encode()).hexdigest(),
            "learned_images": [digests[one][:IMAGE_DIGITS] for one in (*self.parts.train, *self.parts.validation)],
        }

    @property
    def notes(self) -> tuple[str, ...]:
        """What has to be known of the split, and of views that are there for some images only."""
        n_train = len(self.parts.train)
        counts = {name: len(ids.intersection(self.parts.train)) for name, ids in self._there.items()}
        partly = [f"{name} of {n}" for name, n in counts.items() if n < n_train]
        lacking = (
            f"Of the {n_train} training images of {self.dataset} some views are there for a part only: "
            f"{some(partly)}. They are learned from as they are; `nucseg embed` with the same --views completes them."
        )
        return (*self.parts.notes, *((lacking,) if partly else ()))


def open_courses(config: DistillConfig, recorded: Mapping[str, Sequence[str]] | None = None) -> list[Course]:
    """The courses of all data sets, in the views that were recorded of each if any were.

    Raises ConfigError where they are not of one and the same teacher.
    """
    courses = [Course.open(config, name, None if recorded is None else recorded.get(name)) for name in config.dataset]
    for course in courses[1:]:
        lines = differences(courses[0].teacher, course.teacher)
        if lines:
            raise ConfigError(
                f"The embeddings of {courses[0].dataset} and {course.dataset} are not of one teacher:\n  "
                + "\n  ".join(lines)
                + "\nName one with --teacher (and --weights, --precision), and embed both data sets with it."
            )
    return courses


def _shown(store: Store, key: Key, asked: Iterable[str]) -> list[str]:
    """The names of the views that are shown beside the identity."""
    there = sorted((name for name in store.views(key) if name != IDENTITY), key=_by_number)
    if not asked:
        return there
    names: list[str] = []
    for kind in asked:
        if kind == IDENTITY:
            continue
        found = [name for name in there if name.rpartition("-")[0] == kind]
        if not found:
            known = ", ".join(sorted({name.rpartition("-")[0] for name in there})) or "none"
            raise ConfigError(
                f"{store.location} has these embeddings in no views {kind!r}; beside the images as they are there are: "
                f"{known}. Run `nucseg embed --dataset {store.dataset} {views_option(kind)}` with the same encoder, or "
                f"leave --views out to learn from what there is ({', '.join(view_names()[1:])} come with the package)."
            )
        names += found
    return names


def _by_number(view: str) -> tuple[str, int]:
    name, _, number = view.rpartition("-")
    return name, int(number) if number.isdecimal() else 0
