"""Whether a file or folder is what was asked for: digests of files, and data sets as their own reader sees them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pooch

from nucseg.data import DataSet, open_dataset
from nucseg.errors import DataError
from nucseg_pipeline.fetch.catalogue import Item
from nucseg_pipeline.fetch.errors import FetchError, RefusedError
from nucseg_pipeline.fetch.staging import read_note, write_note

if TYPE_CHECKING:
    from nucseg_pipeline.progress import Progress


@dataclass(frozen=True)
class Fetched:
    """A data set or weights in the place where the stages look for them."""

    item: Item
    path: Path
    is_new: bool
    """Whether it was fetched now; otherwise it was already there."""
    checks: tuple[str, ...]
    """What was verified, and what could not be."""


def folder_size(folder: Path) -> tuple[int, int]:
    """Number of files in a folder and their total size in bytes, links followed: enough to notice that one is gone."""
    sizes = [(Path(root) / name).stat().st_size for root, _, names in os.walk(folder) for name in names]
    return len(sizes), sum(sizes)


def digest_of(file: Path, algorithm: str) -> str:
    """Digest of a file as `algorithm:hexadecimal`. Raises FetchError if the file cannot be read."""
    try:
        return f"{algorithm}:{pooch.file_hash(str(file), alg=algorithm)}"
    except OSError as error:
        raise FetchError(f"{file} cannot be read: {error.strerror}.") from None


def check_digest(file: Path, item: Item, name: str, way_out: str) -> None:
    """Raise RefusedError, which calls the file `name`, unless it has the item's digest."""
    found = digest_of(file, item.digest.partition(":")[0])
    if found != item.digest.lower():
        raise RefusedError(
            f"{name} is not {item.title}: found {found} ({file.stat().st_size} bytes), expected {item.digest} "
            f"(pinned by micro-sam). {way_out}"
        )


def check_dataset(item: Item, folder: Path, source: str, progress: Progress, *, is_published: bool) -> tuple[str, ...]:
    """Read every image of a data set in `folder`; returns what was found.

    Args:
        item: the data set.
        folder: where it is now.
        source: what messages call it.
        progress: called after each image.
        is_published: a digest has shown that this is the published archive, so faults are the publisher's and are
            reported, not refused.

    Raises:
        RefusedError: this is another data set, or, unless it is as published, images are missing or unreadable.
    """
    from nucseg_pipeline.datasets.status import check

    dataset = list_images(item, folder, source)
    found = check(dataset, progress)
    faults = [f"{len(found.bad)} images cannot be read: {found.bad[0][1]}"] if found.bad else []
    faults += [mismatch] if (mismatch := count_mismatch(item, dataset)) else []
    faults = [fault.replace(str(folder), source) for fault in faults]
    if faults and not is_published:
        raise RefusedError(
            f"{source} is not the complete {item.title}: {'; '.join(faults)}. Download it again. To use only a part "
            f"of it, leave it where it is: `nucseg embed --dataset {item.name} --source DIR`."
        )
    return (f"{found.n_images} images read, with {found.n_nuclei} nuclei", *faults)


def check_existing(item: Item, found: Path) -> Fetched:
    """Check what is already in place, without changing it. FetchError if it is not what a fetch would put there."""
    way_out = f"To fetch it again, move {found} away."
    if item.release is None:
        check_digest(found, item, str(found), way_out)
        return Fetched(item, found, False, (f"{item.digest}, pinned by micro-sam",))
    if note := read_note(found):
        n_files, n_bytes = folder_size(found)
        if (n_files, n_bytes) != (note.get("files"), note.get("unpacked_bytes")):
            raise FetchError(
                f"{found} has changed since it was fetched: found {n_files} files of {n_bytes} bytes, expected "
                f"{note.get('files')} of {note.get('unpacked_bytes')}. {way_out}"
            )
        return Fetched(item, found, False, (f"{n_files} files of {n_bytes} bytes, unchanged since the fetch",))
    try:
        mismatch = count_mismatch(item, list_images(item, found, str(found)))
    except RefusedError as error:
        raise FetchError(f"{error} {way_out}") from None
    if mismatch:
        raise FetchError(
            f"{found}: {mismatch}. You can use it as it is: `nucseg embed --dataset {item.name}`. {way_out}"
        )
    return Fetched(item, found, False, (f"no image is missing; `nucseg datasets {item.name}` reads them all",))


def accept_existing(item: Item, found: Path, progress: Progress) -> Fetched:
    """Verify and note what the user has put in place by hand, without changing it."""
    if item.release is None:
        return check_existing(item, found)
    checks = check_dataset(item, found, str(found), progress, is_published=False)
    write_note(found, dataset_note(found, str(found), ""))
    return Fetched(item, found, False, checks)


def dataset_note(folder: Path, source: str, digest: str) -> dict[str, object]:
    """What is noted beside a data set: where it came from, the archive's digest, and its size."""
    n_files, n_bytes = folder_size(folder)
    return {"from": source, "digest": digest, "files": n_files, "unpacked_bytes": n_bytes}


def list_images(item: Item, folder: Path, source: str) -> DataSet:
    """The data set as its reader lists it. RefusedError, which calls it `source`, if it is another or damaged."""
    try:
        return open_dataset(item.name, folder)
    except DataError as error:
        raise RefusedError(str(error).replace(str(folder), source)) from None


def count_mismatch(item: Item, dataset: DataSet) -> str:
    """How the number of images differs from the published one; empty if it does not."""
    n_images = len(dataset.entries) + dataset.n_left_out
    expected = item.release.n_images if item.release else None
    return "" if n_images == expected else f"found {n_images} images, expected {expected}"
