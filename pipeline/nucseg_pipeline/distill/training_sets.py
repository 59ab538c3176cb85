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
from nucseg_pipeline.runs.selection import Selection, complete_embeddings, embed_command, used_ids


@dataclass(frozen=True, eq=False)
class TeacherSet:
    """The images of one data set with the embeddings that a teacher made of them."""

    dataset: str
    store: Store
    key: Key
    parts: Split
    embeddings: Embeddings
    """Of the images as they are."""
    views: Mapping[str, Embeddings]
    """Name -> the other views that are learned; each may be there for some images only."""

    @classmethod
    def open(cls, config: DistillConfig, dataset: str, recorded: Sequence[str] | None = None) -> TeacherSet:
        """Open a data set, in the views that a resumed distillation recorded; see `distill` for the errors."""
        selection = Selection.open(config.training_on(dataset))
        store, parts = selection.store, selection.split
        key = cast(Key, selection.key)  # None is for trainings without guidance
        embeddings = complete_embeddings(store, key, used_ids(parts), selection.config)
        available = store.views(key)
        if recorded is None:
            names = _view_names(selection, key, config.views)
        else:
            names = [name for name in recorded if name in available]
        return cls(dataset, store, key, parts, embeddings, {name: store.embeddings(key, name) for name in names})

    @cached_property
    def _embedded_ids(self) -> Mapping[str, set[str]]:
        """View -> ids, as they were when first asked for: other processes may be embedding meanwhile."""
        return {name: {info.id for info in view.embedded_rows()} for name, view in self.views.items()}

    def views_of(self, part: Sequence[str]) -> list[tuple[int, str]]:
        """Every view of every image of a part: position of the image in the part, and name of the view."""
        return [
            (position, view)
            for position, sample_id in enumerate(part)
            for view in (IDENTITY, *(name for name, ids in self._embedded_ids.items() if sample_id in ids))
        ]

    @property
    def teacher(self) -> dict[str, str]:
        """The identity of the encoder that made the embeddings."""
        return {name: value for name, value in self.key.fields.items() if name != "format"}

    @cached_property
    def description(self) -> dict[str, Any]:
        """What is learned from, as inputs.json and the student's file record it."""
        digests = {info.id: info.image_digest.hex() for info in self.store.table if info.present}
        parts = {"train": self.parts.train, "validation": self.parts.validation, "test": self.parts.test}
        images = [[[sample_id, digests[sample_id]] for sample_id in ids] for ids in parts.values()]
        learned = self.views_of(self.parts.train)
        used = (*self.parts.train, *self.parts.validation)
        return {
            "protocol": self.parts.protocol,
            **{f"n_{name}": len(ids) for name, ids in parts.items()},
            "n_shown": len(learned),
            "views": {name: dict(view.described) for name, view in self.views.items()},
            "embeddings": self.key.hash,
            "inputs": hashlib.sha256(json.dumps([images, learned]).encode()).hexdigest(),
            "learned_images": [digests[sample_id][:IMAGE_DIGITS] for sample_id in used],
        }

    @property
    def notes(self) -> tuple[str, ...]:
        """What has to be known of the split, and of views that are there for some images only."""
        n_train = len(self.parts.train)
        counts = {name: len(ids.intersection(self.parts.train)) for name, ids in self._embedded_ids.items()}
        partial = [f"{name} of {n}" for name, n in counts.items() if n < n_train]
        incomplete = (
            f"Some views are there for only a part of the {n_train} training images of {self.dataset}: "
            f"{some(partial)}. They are used as they are; the command that embedded these views completes them."
        )
        return (*self.parts.notes, *((incomplete,) if partial else ()))


def open_teacher_sets(config: DistillConfig, recorded: Mapping[str, Sequence[str]] | None = None) -> list[TeacherSet]:
    """Open all data sets, in the views that a resumed distillation recorded of each.

    Raises:
        ConfigError: they are not of one and the same teacher.
    """
    sets = [TeacherSet.open(config, name, None if recorded is None else recorded.get(name)) for name in config.dataset]
    for other in sets[1:]:
        lines = differences(sets[0].teacher, other.teacher)
        if lines:
            raise ConfigError(
                f"The embeddings of {sets[0].dataset} and {other.dataset} are not of one teacher:\n  "
                + "\n  ".join(lines)
                + "\nName one with --teacher (and --weights, --precision), and embed both data sets with it."
            )
    return sets


def _view_names(selection: Selection, key: Key, asked: Iterable[str]) -> list[str]:
    """The names of the views that are learned besides the identity; all if none are asked for."""
    store = selection.store
    available = sorted((name for name in store.views(key) if name != IDENTITY), key=_by_number)
    if not asked:
        return available
    names: list[str] = []
    for kind in asked:
        if kind == IDENTITY:
            continue
        found = [name for name in available if name.rpartition("-")[0] == kind]
        if not found:
            known = ", ".join(sorted({name.rpartition("-")[0] for name in available})) or "none"
            raise ConfigError(
                f"{store.location} has these embeddings in no views {kind!r}; besides the images as they are it has: "
                f"{known}. Run `{embed_command(store, key, selection.config, views=kind)}`, or "
                f"leave --views out to learn from what there is ({', '.join(view_names()[1:])} come with the package)."
            )
        names += found
    return names


def _by_number(view: str) -> tuple[str, int]:
    name, _, number = view.rpartition("-")
    return name, int(number) if number.isdecimal() else 0
