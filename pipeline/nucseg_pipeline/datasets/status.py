"""What is known about data sets, where they are, and whether they are complete."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from nucseg.data import DataSet, Entry, Release, SplitRow, n_folds, prepare, protocol_summary, release_named, releases
from nucseg.data.mask_notes import mask_notes
from nucseg.data.masks import MaskFacts
from nucseg.data.official_splits import plain_name
from nucseg.errors import ConfigError, DataError, NucsegError, suggestion
from nucseg.paths import home_expanded
from nucseg_pipeline.datasets.cached import CachedDataset, cached_dataset, store_names
from nucseg_pipeline.datasets.locate import FOLDER, SYNTHETIC, find_folder, layout_name, open_source
from nucseg_pipeline.loading.inspection import caution, caution_notes, ignored_note
from nucseg_pipeline.progress import Progress

EMBEDDING_MIB = 1.7
"""Size of an embedding on disk in the default format, measured on H&E images."""

COMPLETE, NOT_FOUND = "complete", "not found"

_READERS = 4
"""Threads that read images."""


@dataclass(frozen=True)
class DatasetStatus:
    """One data set: its release, its folder on this machine, and its store in the cache."""

    name: str
    """Also the name of its store in the cache."""
    release: Release
    """The release whose folder layout it has."""
    folder: str
    """Where it is; empty if it was not found, or is drawn."""
    dataset: DataSet | None
    """The listed images; None if there are none, or something is wrong."""
    problem: str
    """What is wrong with the folder."""
    cached: CachedDataset | None
    """What the cache holds of it."""

    @property
    def state(self) -> str:
        """Whether it is there and complete, in a few words."""
        if self.problem:
            return f"wrong: {first_sentence(self.problem)}"
        if self.dataset is None:
            return NOT_FOUND
        n_used, n_left_out = len(self.dataset.entries), self.dataset.n_left_out
        used = f", {n_used} of them used" if n_left_out else ""
        if self.release.n_images is None:
            return f"{n_used} images"
        n_found = n_used + n_left_out
        return f"{COMPLETE if self.is_complete else f'{n_found} of {self.release.n_images} images'}{used}"

    @property
    def is_complete(self) -> bool:
        """Whether all images of the release are there, including those that are not used."""
        return self.dataset is not None and len(self.dataset.entries) + self.dataset.n_left_out == self.release.n_images


@dataclass(frozen=True)
class Check:
    """Result of reading every image."""

    n_images: int
    n_nuclei: int
    """In the readable images."""
    bad: tuple[tuple[str, str], ...]
    """Id and reason of each unreadable image."""
    notes: tuple[str, ...]
    """What was found in the masks, and which images do not look like H&E or are ignored."""


def dataset_statuses(cache: str) -> tuple[DatasetStatus, ...]:
    """Every known data set, then the others in a local cache.

    Folders are listed and the stores' metadata is read; what is wrong with a data set is reported in its status.
    `folder` is left out unless a folder or a store has that name.
    """
    known = [dataset_status(release.name, cache) for release in releases()]
    names = {status.name for status in known}
    others = [dataset_status(name, cache) for name in store_names(cache) if name not in names]
    return (*(status for status in known if status.name != FOLDER or status.folder or status.cached), *others)


def find_dataset(name: str, cache: str, given: Path | None = None, convert: str | None = None) -> DatasetStatus:
    """The status of a data set by name, in the folder `given` if there is one.

    Raises ConfigError for an unknown name that has no store and no folder.
    """
    status = dataset_status(name, cache, given, convert)
    if layout_name(name) == FOLDER != name and not (status.folder or status.cached):
        names = [release.name for release in releases()]
        near = suggestion(name, {*names, *store_names(cache)})
        raise ConfigError(
            f"No data set is called {name!r}: known are {', '.join(names)}, and {cache} has no store of that name. "
            f"{near}{' ' if near else ''}If it is a folder of your own, name it with --source DIR; if its store is "
            "elsewhere, name its folder with --cache."
        )
    return status


def dataset_status(name: str, cache: str, given: Path | None = None, convert: str | None = None) -> DatasetStatus:
    """Look up a data set in the folder `given` or in the known places, and its store; damage raises no error.

    Images are read as `convert` says, by default as for the store.
    """
    cached, layout = cached_dataset(cache, name), layout_name(name)
    folder, dataset, problem = "", None, ""
    try:
        place = given or (None if layout == SYNTHETIC else find_folder(name, cached.source if cached else ""))
        folder = str(home_expanded(place).absolute()) if place else ""
        if place or layout == SYNTHETIC:
            # not normalised: whether the files can be read does not depend on their stain
            convert = convert or (cached.convert if cached else "none")
            dataset = replace(open_source(plain_name(name), place, convert=convert), name=name)
    except NucsegError as error:
        problem = str(error)
    except OSError as error:
        problem = f"{error.strerror}: {error.filename}."
    return DatasetStatus(name, release_named(layout), folder, dataset, problem, cached)


def protocol_with_folds(status: DatasetStatus) -> str:
    """The official protocol, and its number of folds with the images that were found."""
    summary = protocol_summary(status.name, "official")
    if status.dataset is None:
        return summary
    rows = [SplitRow(id=entry.id, group=entry.group, stratum=entry.stratum) for entry in status.dataset.entries]
    try:
        return f"{summary}. With these images: {n_folds(rows, dataset=status.name, protocol='official')} folds"
    except ConfigError as error:
        return f"{summary}. These images cannot be split: {error}"


def size_summary(status: DatasetStatus) -> str:
    """The size of the download, and of the embeddings of the images that were found, else of the release."""
    release = status.release
    download = "download of unknown size" if release.home else "nothing to download"
    if release.download_gb is not None:
        download = f"download of {release.download_gb:g} GB"
    n_images = len(status.dataset.entries) if status.dataset else release.n_images
    embeddings = f"embeddings {EMBEDDING_MIB} MiB an image in the format f16"
    total = "" if n_images is None else f", {EMBEDDING_MIB * n_images / 1024:.3f} GiB for {n_images}"
    return f"{download}; {embeddings}{total}"


def check(dataset: DataSet, progress: Progress) -> Check:
    """Read every image with its masks, and count the nuclei; `progress` is called with (done, total, what)."""
    bad: list[tuple[str, str]] = []
    facts: dict[str, MaskFacts] = {}
    cautions: dict[str, str] = {}
    n_nuclei, total = 0, len(dataset.entries)
    with ThreadPoolExecutor(_READERS) as pool:
        outcomes = zip(dataset.entries, pool.map(_looked_at, dataset.entries), strict=True)
        for done, (entry, found) in enumerate(outcomes, 1):
            if isinstance(found, DataError):
                bad.append((entry.id, str(found)))
            else:
                n_nuclei += found[0]
                facts[entry.id], cautions[entry.id] = found[1:]
            progress(done, total, "reading")
    n_read = len(cautions)
    notes = (*mask_notes(facts), *caution_notes(cautions, n_read), *ignored_note(cautions, n_read))
    return Check(total, n_nuclei, tuple(bad), notes)


def first_sentence(message: str) -> str:
    """A message up to its first full stop, without it."""
    return message.partition(". ")[0].rstrip(".")


def _looked_at(entry: Entry) -> tuple[int, MaskFacts, str] | DataError:
    """Number of nuclei, what was found in the masks, and the caution on the image."""
    try:
        sample = entry.read()[0]
        prepared = prepare(sample.image, sample.instances, sample.ignore)
    except DataError as error:
        return error
    return len(np.unique(sample.instances[sample.instances > 0])), sample.mask_facts, caution(prepared)
