"""`nucseg datasets`."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nucseg_pipeline.cli import completion
from nucseg_pipeline.cli.console import FAILED, err, listing, notes, out, progress_bar

if TYPE_CHECKING:
    from rich.table import Table

    from nucseg_pipeline.datasets.status import Check, DatasetStatus

_WIDE = 120
"""Width of a terminal, in characters, that is enough for one column per fact."""

_STATE_LETTERS, _PATH_LETTERS, _LABEL_LETTERS = 100, 40, 14
_MOST_BAD = 8
"""Unreadable images that are listed."""


def datasets(
    name: Annotated[
        str | None,
        typer.Argument(
            autocompletion=completion.datasets,
            metavar="NAME",
            help="nuinsseg, cryonuseg, ..., or the name of a store in the cache.",
        ),
    ] = None,
    source: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the data set.",
            show_default="where the store was made from, $NUCSEG_DATA/NAME or ./data/NAME",
        ),
    ] = None,
    convert: Annotated[
        str | None,
        typer.Option(
            help="How images that are not 8-bit RGB or gray are read: none or full-range, as in embed.",
            show_default="as in the store, else none",
        ),
    ] = None,
    cache: Annotated[
        str | None,
        typer.Option(
            help="Folder or URL of the cache.", show_default="$NUCSEG_CACHE, or nucseg in the user's cache folder"
        ),
    ] = None,
    no_read: Annotated[
        bool, typer.Option("--no-read", help="With NAME: list the images without reading them.")
    ] = False,
) -> None:
    """List data sets: where they are, whether they are complete, and how many embeddings are cached.

    With NAME, describe one and how to get it, and read all of its images: exits with 1 if one cannot be read, or if the
    folder is not that data set. Reads only: nothing is downloaded.
    """
    from nucseg_pipeline.config import default_cache

    if name is not None:
        _show(name, source, convert, cache or default_cache(), read=not no_read)
    elif source is not None or convert is not None or no_read:
        raise typer.BadParameter("--source, --convert and --no-read go with the NAME of a data set.")
    else:
        _show_all(cache or default_cache())


def _show_all(cache: str) -> None:
    from nucseg_pipeline.datasets.status import dataset_statuses

    statuses = dataset_statuses(cache)
    out.print(_wide_table(statuses) if out.width >= _WIDE else _narrow_table(statuses))
    data = os.environ.get("NUCSEG_DATA")
    out.print(f"Looked in $NUCSEG_DATA ({data or 'not set'}), in ./data, and where the stores in {cache} came from.")
    out.print("`nucseg fetch` downloads one. `nucseg datasets NAME` says how to get it, and reads every image of it.")
    out.print("Any folder with images/ and masks/ is a data set, too: see `nucseg datasets folder`.")


def _wide_table(statuses: Sequence[DatasetStatus]) -> Table:
    columns = ("data set", "what", "licence", "images", "found", "state", "in the cache")
    rows = [
        (status.name, status.release.contents, status.release.licence, *_listed_facts(status)) for status in statuses
    ]
    wide = listing(columns, rows)
    wide.columns[4].width = min(max(len(row[4]) for row in rows), _PATH_LETTERS)
    return wide


def _narrow_table(statuses: Sequence[DatasetStatus]) -> Table:
    rows = []
    for status in statuses:
        released, place, state, cached = _listed_facts(status)
        text = f"{status.release.contents}; {released} images\nlicence: {status.release.licence}\n"
        rows.append((status.name, f"{text}found: {place}\nstate: {state}\nin the cache: {cached}"))
    return listing(("data set", "description and state"), rows)


def _listed_facts(status: DatasetStatus) -> tuple[str, str, str, str]:
    """The images of the release, the place, the state, and what is in the cache."""
    released = "any" if status.release.n_images is None else str(status.release.n_images)
    state = textwrap.shorten(status.state, _STATE_LETTERS, placeholder=" ...")
    return released, _place(status), state, _in_cache(status)


def _place(status: DatasetStatus) -> str:
    return status.folder or ("drawn, not read" if status.dataset else "-")


def _in_cache(status: DatasetStatus) -> str:
    from nucseg_pipeline.datasets.status import first_sentence

    cached = status.cached
    if cached is None:
        return "-"
    if cached.problem:
        return textwrap.shorten(f"wrong: {first_sentence(cached.problem)}", _STATE_LETTERS, placeholder=" ...")
    return f"{_count(cached.n_images, 'image')}, {_count(cached.n_embeddings, 'embedding')}"


def _show(name: str, source: Path | None, convert: str | None, cache: str, *, read: bool) -> None:
    from nucseg.errors import DataError
    from nucseg_pipeline.datasets.status import check, find_dataset

    status = find_dataset(name, cache, source, convert)
    out.print(status.release.title if status.name == status.release.name else name)
    for label, text in _known_facts(status):
        out.print(_labelled(label, _wrapped(text)))
    for label, text in _place_facts(status, source):
        out.print(_labelled(label, text))
    if status.problem:
        raise DataError(status.problem)
    if status.dataset is None:
        return
    notes(status.dataset.notes)
    if not read:
        out.print(f"{_count(len(status.dataset.entries), 'image')} listed ({status.state}), none read")
        return
    with progress_bar() as progress:
        found = check(status.dataset, progress)
    notes(found.notes)
    _print_check(found, status)


def _known_facts(status: DatasetStatus) -> list[tuple[str, str]]:
    from nucseg_pipeline.datasets.status import protocol_with_folds, size_summary

    release = status.release
    return [
        ("contents", release.contents),
        ("images", "any number" if release.n_images is None else f"{release.n_images} in a whole copy"),
        ("licence", release.licence),
        ("to get it", "\n".join(f"{number}. {step}" for number, step in enumerate(release.instructions, 1))),
        ("layout", "\n".join(release.layout)),
        ("protocol", protocol_with_folds(status)),
        ("cost", size_summary(status)),
    ]


def _place_facts(status: DatasetStatus, source: Path | None) -> list[tuple[str, str]]:
    """Facts that are not wrapped: addresses and paths are meant to be copied."""
    from nucseg_pipeline.datasets.locate import FOLDER, SYNTHETIC, places
    from nucseg_pipeline.datasets.status import NOT_FOUND

    cached, release = status.cached, status.release
    looked = [source] if source else places(status.name, cached.source if cached else "")
    own = release.name == FOLDER
    by = "put" if own else f"`nucseg fetch {release.name}` gets it; or put"
    missing = f"nothing: {by} it in one of these places, or name it with --source DIR"
    return [
        ("home", release.home or "-"),
        ("looked in", "-" if release.name == SYNTHETIC else "\n".join(str(place.absolute()) for place in looked)),
        ("found", missing if status.state == NOT_FOUND else _place(status)),
        ("in the cache", f"{cached.problem or _in_cache(status)}\n{cached.location}" if cached else "nothing"),
    ]


def _labelled(label: str, text: str) -> str:
    return label.ljust(_LABEL_LETTERS) + textwrap.indent(text, " " * _LABEL_LETTERS)[_LABEL_LETTERS:]


def _wrapped(text: str) -> str:
    width = max(out.width - _LABEL_LETTERS, 40)
    wrap = textwrap.TextWrapper(width, break_long_words=False, break_on_hyphens=False)
    return "\n".join(wrap.fill(paragraph) for paragraph in text.splitlines())


def _print_check(found: Check, status: DatasetStatus) -> None:
    """Print what the check found; exit with 1 if an image could not be read."""
    count, nuclei = _count(found.n_images, "image"), f"{found.n_nuclei} nuclei"
    if not found.bad:
        whole = status.is_complete
        out.print(f"complete: {count}, {nuclei}" if whole else f"{status.state}, all can be read: {nuclei}")
        return
    out.print(f"{len(found.bad)} of {count} cannot be read; {nuclei} in the others")
    for id_, reason in found.bad[:_MOST_BAD]:
        err.print(f"{id_}: {reason}")
    if len(found.bad) > _MOST_BAD:
        err.print(f"and {len(found.bad) - _MOST_BAD} more")
    raise typer.Exit(FAILED)


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"
