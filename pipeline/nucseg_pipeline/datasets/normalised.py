"""Images that are stain-normalised when they are read, and the note that lists those that could not be."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucseg.data import DataSet, Entry, Sample, normalise
from nucseg.data.masks import MaskFacts
from nucseg_cache import Store

_NOTE = re.compile(r"\d+ images? (?:is|are) left in (?:its|their) own colours, .*?: (\{.*\})", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class NormalisedEntry(Entry):
    """An image in the colours of the reference. Its masks and digests are those of the original files."""

    original: Entry
    stain: str
    """white, macenko or reinhard."""
    outcomes: dict[str, str] = field(compare=False, repr=False)
    """Id -> why the image was not normalised, "" if it was; of those read so far. Shared by a data set's entries."""

    def digests(self) -> tuple[bytes, bytes]:
        """The digests of the original."""
        return self.original.digests()

    def read_image(self) -> tuple[NDArray[np.uint8], bytes]:
        """The normalised image, and the digest of the original."""
        image, digest = self.original.read_image()
        return self._normalised(image), digest

    def read(self) -> tuple[Sample, bytes, bytes]:
        """The sample with the normalised image, and the digests of the original."""
        sample, image_digest, mask_digest = self.original.read()
        return replace(sample, image=self._normalised(sample.image)), image_digest, mask_digest

    def read_mask_facts(self) -> MaskFacts:
        """What was found in the original's masks."""
        return self.original.read_mask_facts()

    def _normalised(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        normalised = normalise(image, self.stain, self.mpp)
        self.outcomes[self.id] = normalised.unchanged
        return normalised.image


def stain_normalised(dataset: DataSet, stain: str) -> DataSet:
    """The data set with every image normalised when it is read; unchanged if the stain is none."""
    if stain == "none":
        return dataset
    outcomes: dict[str, str] = {}

    def entry(original: Entry) -> NormalisedEntry:
        known: dict[str, Any] = {name: getattr(original, name) for name in ("id", "group", "stratum", "mpp")}
        return NormalisedEntry(**known, original=original, stain=stain, outcomes=outcomes)

    return replace(dataset, entries=tuple(entry(original) for original in dataset.entries))


def note_of(unchanged: Mapping[str, str]) -> tuple[str, ...]:
    """The note on images that could not be normalised, given id -> reason; none if there are none."""
    if not unchanged:
        return ()
    subject = "1 image is left in its" if len(unchanged) == 1 else f"{len(unchanged)} images are left in their"
    named = json.dumps(dict(sorted(unchanged.items())), ensure_ascii=False)
    return (f"{subject} own colours, because the stain normalisation has nothing to go by: {named}",)


def unchanged_in(notes: Sequence[str]) -> dict[str, str]:
    """Id -> reason, from the note made by `note_of`; empty if it is not among the notes."""
    found = [json.loads(match[1]) for match in map(_NOTE.fullmatch, notes) if match]
    return found[0] if found else {}


def remember_unchanged(store: Store, entries: Sequence[Entry]) -> None:
    """Add to the store's note which of these entries could not be normalised when they were read."""
    outcomes = {
        entry.id: entry.outcomes[entry.id]
        for entry in entries
        if isinstance(entry, NormalisedEntry) and entry.id in entry.outcomes
    }

    def unchanged() -> dict[str, str]:
        return {id_: reason for id_, reason in (unchanged_in(store.notes) | outcomes).items() if reason}

    if unchanged() == unchanged_in(store.notes):
        return
    with store.exclusive():  # it reads the notes again: another process may have added to them
        others = [note for note in store.notes if not unchanged_in([note])]
        store.remember_source(store.source, (*others, *note_of(unchanged())))
