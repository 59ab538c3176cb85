"""What is there already: whether it is what a fetch would bring, without changing anything of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nucseg_pipeline.fetching.catalogue import Item
from nucseg_pipeline.fetching.checking import Inventory, check_dataset, check_digest, count_fault, listed
from nucseg_pipeline.fetching.download import Progress
from nucseg_pipeline.fetching.errors import FetchError, RefusedError
from nucseg_pipeline.fetching.workplace import read_note, write_note


@dataclass(frozen=True)
class Fetched:
    """What is there now."""

    item: Item
    place: Path
    is_new: bool
    """Whether it came now; else it was there."""
    checks: tuple[str, ...]
    """What it was held against, and what it could not be held against."""


def dataset_note(folder: Path, came_from: str, digest: str) -> dict[str, object]:
    """What is noted beside a data set that was fetched."""
    inventory = Inventory.of(folder)
    return {"from": came_from, "digest": digest, "files": inventory.n_files, "unpacked_bytes": inventory.n_bytes}


def what_is_there(item: Item, found: Path) -> Fetched:
    """What lies where the stages look. FetchError, with the way out, where it is not what it should be."""
    again = f"To fetch it again, move {found} away."
    if item.release is None:
        check_digest(found, item.digest, item.digest_from, again)
        return Fetched(item, found, False, (f"{item.digest}, {item.digest_from}",))
    if note := read_note(found):
        if changes := Inventory.of(found).changes(note):
            raise FetchError(f"{found} is no longer what was fetched: {changes}. {again}")
        return Fetched(item, found, False, (f"{note['files']} files, {note['unpacked_bytes']} bytes, as when fetched",))
    try:
        fault = count_fault(item, listed(item, found, str(found)))
    except RefusedError as error:
        raise FetchError(f"{error} {again}") from None
    if fault:
        raise FetchError(
            f"{found} holds {fault}. It can be used as it is (`nucseg embed --dataset {item.name}`). {again}"
        )
    return Fetched(item, found, False, (f"all images are there, not read: `nucseg datasets {item.name}` does that",))


def accept(item: Item, found: Path, progress: Progress) -> Fetched:
    """What a person has put where the stages look: checked there, and noted."""
    if item.release is None:
        return what_is_there(item, found)
    checks = check_dataset(item, found, str(found), progress, is_published=False)
    write_note(found, dataset_note(found, str(found), ""))
    return Fetched(item, found, False, checks)
