"""What is known of data sets, where they lie, and whether they are whole."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from nucseg.data import DataSet, Entry, Release, SplitRow, n_folds, protocol_summary, release_named, releases
from nucseg.data.official_splits import plain_name
from nucseg.errors import ConfigError, DataError, NucsegError
from nucseg.paths import home_expanded
from nucseg_pipeline.datasets.cached import CachedDataset, holding, store_names
from nucseg_pipeline.datasets.locate import FOLDER, SYNTHETIC, find_folder, layout_name, open_source
from nucseg_pipeline.progress import Progress

EMBEDDING_MIB = 1.7
"""What an embedding takes on disk in the default format, measured on H&E images."""

COMPLETE, NOT_FOUND = "complete", "not found"

_READERS = 4


@dataclass(frozen=True)
class DatasetStatus:
    """One data set: what is known of it, and what of it is here."""

    name: str
    """As its store in the cache is called."""
    release: Release
    """Of the data set whose layout it has."""
    folder: str
    """Where it lies; empty where it was not found, or is drawn."""
    dataset: DataSet | None
    """The listed images; None where there are none, or something is wrong."""
    problem: str
    """What is wrong with the folder."""
    holding: CachedDataset | None
    """What the cache holds of it."""

    @property
    def state(self) -> str:
        """Whether it is there and whole."""
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
        """Whether all images of the release are there, those included that are left out."""
        return self.dataset is not None and len(self.dataset.entries) + self.dataset.n_left_out == self.release.n_images


@dataclass(frozen=True)
class Check:
    """What reading every image found."""

    n_images: int
    n_nuclei: int
    """In the images that could be read."""
    bad: tuple[tuple[str, str], ...]
    """Id and reason of each image that could not."""


def survey(cache: str) -> tuple[DatasetStatus, ...]:
    """Every known data set, then the others that a local cache holds under names of their own.

    Lists folders and reads what describes the stores; whatever is wrong with one of them stands in its place. `folder`,
    which is everybody's own, has a place only where there is one of that very name.
    """
    known = [stand(one.name, cache) for one in releases()]
    names = {one.name for one in known}
    others = [stand(name, cache) for name in store_names(cache) if name not in names]
    return (*(one for one in known if one.name != FOLDER or one.folder or one.holding), *others)


def find(name: str, cache: str, given: Path | None = None) -> DatasetStatus:
    """One data set by name, known or one's own; in the folder `given`, if any.

    Raises ConfigError for a name that is not known, has no store and no folder.
    """
    found = stand(name, cache, given)
    if layout_name(name) == FOLDER != name and not (found.folder or found.holding):
        raise ConfigError(
            f"No data set is called {name!r}: known are {', '.join(one.name for one in releases())}, and there is no "
            f"store of that name in {cache}. If it is a folder of your own, name it with --source DIR; stores in "
            "another place are found with --cache."
        )
    return found


def stand(name: str, cache: str, given: Path | None = None) -> DatasetStatus:
    """Look up a data set, in the folder `given` or where it is looked for, and its store; never fails over damage."""
    held, layout = holding(cache, name), layout_name(name)
    folder, dataset, problem = "", None, ""
    try:
        place = given or (None if layout == SYNTHETIC else find_folder(name, held.source if held else ""))
        folder = str(home_expanded(place).absolute()) if place else ""
        if place or layout == SYNTHETIC:
            # as the files are: whether they can be read does not depend on their stain
            dataset = replace(open_source(plain_name(name), place), name=name)
    except NucsegError as error:
        problem = str(error)
    except OSError as error:
        problem = f"{error.strerror}: {error.filename}."
    return DatasetStatus(name, release_named(layout), folder, dataset, problem, held)


def protocol_here(standing: DatasetStatus) -> str:
    """What the official protocol is, and how many folds it has with the images that are here."""
    summary = protocol_summary(standing.name, "official")
    if standing.dataset is None:
        return summary
    rows = [SplitRow(id=one.id, group=one.group, stratum=one.stratum) for one in standing.dataset.entries]
    try:
        return f"{summary}. With these images: {n_folds(rows, dataset=standing.name, protocol='official')} folds"
    except ConfigError as error:
        return f"{summary}. These images cannot be divided: {error}"


def cost(standing: DatasetStatus) -> str:
    """What is downloaded, and what the embeddings of the images, those here or else those of the release, take."""
    known = standing.release
    download = "download of unknown size" if known.home else "nothing to download"
    if known.download_gb is not None:
        download = f"download of {known.download_gb:g} GB"
    n_images = len(standing.dataset.entries) if standing.dataset else known.n_images
    embeddings = f"embeddings {EMBEDDING_MIB} MiB an image in the format f16"
    total = "" if n_images is None else f", {EMBEDDING_MIB * n_images / 1024:.3f} GiB for {n_images}"
    return f"{download}; {embeddings}{total}"


def check(dataset: DataSet, progress: Progress) -> Check:
    """Read every image with its masks, and count the nuclei; `progress` is called with (done, total, what)."""
    bad: list[tuple[str, str]] = []
    n_nuclei, total = 0, len(dataset.entries)
    with ThreadPoolExecutor(_READERS) as pool:
        for done, (entry, found) in enumerate(zip(dataset.entries, pool.map(_nuclei, dataset.entries), strict=True), 1):
            if isinstance(found, DataError):
                bad.append((entry.id, str(found)))
            else:
                n_nuclei += found
            progress(done, total, "reading")
    return Check(total, n_nuclei, tuple(bad))


def first_sentence(message: str) -> str:
    """A message up to its first full stop."""
    return message.partition(". ")[0].rstrip(".")


def _nuclei(entry: Entry) -> int | DataError:
    try:
        instances = entry.read()[0].instances
    except DataError as error:
        return error
    return len(np.unique(instances[instances > 0]))
