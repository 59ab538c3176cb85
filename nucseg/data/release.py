"""What is known of a data set as its authors release it, and the rules that all readers of releases share."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from nucseg.data.files import found_in, some, subfolders
from nucseg.data.sample import Entry
from nucseg.errors import DataError

MOST_UNLABELLED = 0.01
"""Share of images that may lack a label before the folder counts as half copied."""

AnEntry = TypeVar("AnEntry", bound=Entry)


@dataclass(frozen=True, kw_only=True)
class Release:
    """What is known of a data set as its authors release it."""

    name: str
    """What `open_dataset` calls it."""
    title: str
    """What people call it, with the publication in brackets."""
    contents: str
    """What is on the images, and their size."""
    n_images: int | None
    """Images that a whole copy holds; None where there is no fixed number."""
    licence: str
    home: str
    """Where to get it; empty where there is nothing to get."""
    download_gb: float | None
    """Size of the download in GB, None where it is not known or nothing is downloaded."""
    layout: tuple[str, ...]
    """What lies in the folder, a line each."""
    instructions: tuple[str, ...]
    """How to get it, a step each; the last one says what to name with --source."""

    @property
    def short_title(self) -> str:
        """The title without the publication."""
        return self.title.partition(" (")[0]


def folders_with(source: Path, holds: Callable[[Path], bool]) -> list[Path]:
    """Where a release lies: `source` itself, or folders inside it, or those of the same name inside these.

    Unpacking often puts a folder around the release, sometimes two of one name.
    """
    if holds(source):
        return [source]
    nested = [[child, child / child.name] for child in subfolders(source).values()]
    found = [next((folder for folder in pair if folder.is_dir() and holds(folder)), None) for pair in nested]
    return [folder for folder in found if folder is not None]


def release_folder(release: Release, source: Path, holds: Callable[[Path], bool]) -> Path:
    """The one folder that holds the release, see `folders_with`. DataError if there is none, or more than one."""
    found = folders_with(source, holds)
    if len(found) > 1:
        names = some([str(folder.relative_to(source)) for folder in found])
        raise DataError(
            f"{source} holds {release.short_title} {len(found)} times: {names}. Name the one that is meant "
            "(--source DIR)."
        )
    if not found:
        raise DataError(
            f"{source} is not {release.short_title}: expected there, or in one folder inside it, are "
            f"{'; '.join(release.layout)}. It holds {found_in(source)}. {release.instructions[-1]}"
        )
    return found[0]


def labelled_part(
    release: Release, entries: Sequence[AnEntry], has_label: Callable[[AnEntry], bool], where: str
) -> tuple[list[AnEntry], tuple[str, ...]]:
    """The entries that have a label, and a note that names the others.

    A release itself may lack a label, so up to MOST_UNLABELLED of the images are left out for that. More are a
    DataError, which names `where` their labels should lie.
    """
    kept = [entry for entry in entries if has_label(entry)]
    ids = {entry.id for entry in kept}
    missing = [entry.id for entry in entries if entry.id not in ids]
    if len(missing) > MOST_UNLABELLED * len(entries):
        raise DataError(
            f"{len(missing)} of {len(entries)} {release.short_title} images have no label in {where}: "
            f"{some(missing)}. Copy or unpack the labels again, or move these images away."
        )
    return kept, (f"{release.short_title}: left out for want of a label: {some(missing)}.",) if missing else ()


def count_note(release: Release, n_found: int) -> tuple[str, ...]:
    """A note if the number of images is not that of a whole copy."""
    if release.n_images is None or n_found == release.n_images:
        return ()
    if n_found > release.n_images:
        return (f"{release.short_title}: {n_found} images, where the release has {release.n_images}.",)
    return (f"{release.short_title}: {n_found} of the {release.n_images} released images.",)


def spare_note(release: Release, labels: Sequence[str]) -> tuple[str, ...]:
    """A note if there are labels without an image; `labels` names them."""
    return (f"{release.short_title}: labels without an image, not used: {some(labels)}.",) if labels else ()
