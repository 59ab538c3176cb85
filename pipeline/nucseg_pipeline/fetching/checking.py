"""Whether what was fetched is what was asked for: digests of files, and data sets as their own reader sees them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pooch

from nucseg.data import DataSet, open_dataset
from nucseg.errors import DataError
from nucseg_pipeline.fetching.catalogue import Item
from nucseg_pipeline.fetching.download import Progress
from nucseg_pipeline.fetching.errors import FetchError, RefusedError


def digest_of(file: Path, like: str) -> str:
    """Digest of a file by the algorithm of another digest, `algorithm:hexadecimal`."""
    algorithm = pooch.hashes.hash_algorithm(like)
    try:
        return f"{algorithm}:{pooch.file_hash(str(file), alg=algorithm)}"
    except OSError as error:
        raise FetchError(f"{file} cannot be read: {error.strerror}.") from None


def check_digest(file: Path, digest: str, stated_by: str, way_out: str) -> None:
    """Raise RefusedError if the file has another digest."""
    found = digest_of(file, digest)
    if found != digest.lower():
        raise RefusedError(
            f"{file.name.removesuffix('.part')} is not what it should be: {file.stat().st_size} bytes of {found}, "
            f"expected {digest} ({stated_by}). {way_out}"
        )


def check_dataset(
    item: Item, folder: Path, came_from: str, progress: Progress, *, is_published: bool
) -> tuple[str, ...]:
    """Read every image of a data set in `folder`; returns what there is to know about it.

    Args:
        item: which data set.
        folder: where it lies for now.
        came_from: what to call it in messages.
        progress: called after each image.
        is_published: whether a digest has shown that this is what was published: faults in it are told then, as they
            are the publisher's.

    Raises:
        RefusedError: not that data set; or, unless it is as published, images missing or unreadable.
    """
    from nucseg_pipeline.datasets.status import check

    dataset = listed(item, folder, came_from)
    found = check(dataset, progress)
    faults = [f"{len(found.bad)} images cannot be read: {found.bad[0][1]}"] if found.bad else []
    faults += [fault] if (fault := count_fault(item, dataset)) else []
    faults = [fault.replace(str(folder), came_from) for fault in faults]
    if faults and not is_published:
        raise RefusedError(
            f"{came_from} is not the whole of {item.title}: {'; '.join(faults)}. Get it again; a part of it can be "
            f"used from where it is, `nucseg embed --dataset {item.name} --source DIR`."
        )
    return (f"{found.n_images} images read, with {found.n_nuclei} nuclei", *faults)


def listed(item: Item, folder: Path, came_from: str) -> DataSet:
    """The data set as its reader lists it. RefusedError if it is another, or damaged."""
    try:
        return open_dataset(item.name, folder)
    except DataError as error:
        raise RefusedError(str(error).replace(str(folder), came_from)) from None


def count_fault(item: Item, dataset: DataSet) -> str:
    """What is wrong with the number of images; empty where it is the published one."""
    n_images = len(dataset.entries) + dataset.n_left_out
    expected = item.release.n_images if item.release else None
    return "" if n_images == expected else f"{n_images} images, where {expected} were published"


@dataclass(frozen=True)
class Inventory:
    """How much lies in a folder; enough to see that something has gone since."""

    n_files: int
    n_bytes: int

    @classmethod
    def of(cls, folder: Path) -> Inventory:
        """Count files and bytes; what links point to is counted, folders behind links are not gone into."""
        sizes = [(Path(root) / name).stat().st_size for root, _, names in os.walk(folder) for name in names]
        return cls(len(sizes), sum(sizes))

    def changes(self, note: dict[str, object]) -> str:
        """What differs from what was noted; empty where nothing does."""
        then = note.get("files"), note.get("unpacked_bytes")
        return (
            ""
            if then == (self.n_files, self.n_bytes)
            else (f"{self.n_files} files of {self.n_bytes} bytes, where {then[0]} of {then[1]} were fetched")
        )
