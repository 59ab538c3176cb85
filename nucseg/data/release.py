"""Published releases of data sets, and the rules shared by their readers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from nucseg.data.files import found_in, some, subfolders
from nucseg.data.sample import Entry
from nucseg.errors import DataError

MAX_UNLABELLED = 0.01
"""Share of images that may lack a label; with more, the copy is taken to be incomplete."""

AnEntry = TypeVar("AnEntry", bound=Entry)


@dataclass(frozen=True, kw_only=True)
class Release:
    """Facts about a data set as released by its authors."""

    name: str
    """Its name for `open_dataset`."""
    title: str
    """Its usual name, with the publication in brackets."""
    contents: str
    """Content and size of the images."""
    n_images: int | None
    """Number of images of a complete copy; None if it is not fixed."""
    licence: str
    home: str
    """Where to get it; empty if there is nothing to download."""
    download_gb: float | None
    """Size of the download in GB; None if unknown or nothing is downloaded."""
    layout: tuple[str, ...]
    """Contents of the folder, one line each."""
    instructions: tuple[str, ...]
    """How to get it, in steps; the last says what to give with --source."""

    @property
    def short_title(self) -> str:
        """The title without the publication."""
        return self.title.partition(" (")[0]


def folders_with(source: Path, holds: Callable[[Path], bool]) -> list[Path]:
    """Where a release was found: `source` itself, or its subfolders, or a folder of the same name inside these.

    Unpacking often adds a folder around the release, sometimes two with the same name.
    """
    if holds(source):
        return [source]
    nested = [[child, child / child.name] for child in subfolders(source).values()]
    found = [next((folder for folder in pair if folder.is_dir() and holds(folder)), None) for pair in nested]
    return [folder for folder in found if folder is not None]


def release_folder(release: Release, source: Path, holds: Callable[[Path], bool]) -> Path:
    """Find the folder of the release, see `folders_with`. Raises DataError if there is none, or more than one."""
    found = folders_with(source, holds)
    if len(found) > 1:
        names = some([str(folder.relative_to(source)) for folder in found])
        raise DataError(
            f"{source} holds {release.short_title} {len(found)} times: {names}. Choose one of them (--source DIR)."
        )
    if not found:
        raise DataError(
            f"{source} is not {release.short_title}. Expected there, or in a folder inside it: "
            f"{'; '.join(release.layout)}. It holds {found_in(source)}. {release.instructions[-1]}"
        )
    return found[0]


def labelled_part(
    release: Release, entries: Sequence[AnEntry], has_label: Callable[[AnEntry], bool], where: str
) -> tuple[list[AnEntry], tuple[str, ...]]:
    """Return the entries with a label, and a note that names the others.

    Releases themselves may lack labels, so up to MAX_UNLABELLED of the images are left out. Raises DataError for more,
    saying `where` the labels are expected.
    """
    kept = [entry for entry in entries if has_label(entry)]
    ids = {entry.id for entry in kept}
    missing = [entry.id for entry in entries if entry.id not in ids]
    if len(missing) > MAX_UNLABELLED * len(entries):
        raise DataError(
            f"{len(missing)} of {len(entries)} {release.short_title} images have no label in {where}: "
            f"{some(missing)}. Copy or unpack the labels again, or move these images away."
        )
    return kept, (f"{release.short_title}: left out because they have no label: {some(missing)}.",) if missing else ()


def count_note(release: Release, n_found: int) -> tuple[str, ...]:
    """A note if the number of images is not that of a complete copy."""
    if release.n_images is None or n_found == release.n_images:
        return ()
    if n_found > release.n_images:
        return (f"{release.short_title}: {n_found} images, but the release has {release.n_images}.",)
    return (f"{release.short_title}: {n_found} of the {release.n_images} released images.",)


def spare_note(release: Release, labels: Sequence[str]) -> tuple[str, ...]:
    """A note if there are labels without an image."""
    return (f"{release.short_title}: labels without an image, not used: {some(labels)}.",) if labels else ()
