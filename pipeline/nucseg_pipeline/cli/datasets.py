"""`nucseg datasets`."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nucseg_pipeline.cli import completion
from nucseg_pipeline.cli.console import FAILED, err, notes, out, progress_bar, table

if TYPE_CHECKING:
    from rich.table import Table

    from nucseg_pipeline.datasets.status import Check, DatasetStatus

_WIDE = 120
"""Columns of a terminal from which on every fact has a column of its own."""

_STATE_LETTERS, _PATH_LETTERS, _LABEL_LETTERS, _SHOWN_BAD = 100, 40, 14, 8


def datasets(
    name: Annotated[
        str | None,
        typer.Argument(
            autocompletion=completion.datasets,
            metavar="NAME",
            help="nuinsseg, cryonuseg, ... or the name of a store of yours.",
        ),
    ] = None,
    source: Annotated[
        Path | None,
        typer.Option(help="Folder of the data set. Default: where it was last time, $NUCSEG_DATA/NAME, ./data/NAME."),
    ] = None,
    cache: Annotated[
        str | None, typer.Option(help="Folder or URL of the cache. Default: $NUCSEG_CACHE, user cache.")
    ] = None,
    no_read: Annotated[bool, typer.Option("--no-read", help="With NAME: list the images, but read none.")] = False,
) -> None:
    """Show which data sets are known, where they lie, whether they are whole, and what the cache holds of them.

    With NAME also how to get it; then every image is read: exits with 1 if one cannot be, or if the folder is
    something else. Reads only: nothing is downloaded.
    """
    from nucseg_pipeline.config import default_cache

    if name is not None:
        _show_one(name, source, cache or default_cache(), read=not no_read)
    elif source is not None or no_read:
        raise typer.BadParameter("--source and --no-read go with the NAME of a data set.")
    else:
        _show_all(cache or default_cache())


def _show_all(cache: str) -> None:
    from nucseg_pipeline.datasets.status import dataset_statuses

    found = dataset_statuses(cache)
    shown = _wide_table(found) if out.width >= _WIDE else _narrow_table(found)
    shown.title, shown.show_lines = None, True
    for column in shown.columns:
        column.justify, column.overflow = "left", "fold"
    out.print(shown)
    data = os.environ.get("NUCSEG_DATA")
    out.print(f"Looked in $NUCSEG_DATA ({data or 'not set'}), in ./data, and where the stores in {cache} came from.")
    out.print("`nucseg fetch` gets one. `nucseg datasets NAME` tells how, and reads every image of one that is here.")
    out.print("Any folder of images/ and masks/ is a data set too: see `nucseg datasets folder`.")


def _wide_table(found: Sequence[DatasetStatus]) -> Table:
    columns = ("data set", "what", "licence", "images", "found", "state", "in the cache")
    rows = [
        (one.name, one.release.contents, one.release.licence, _released(one), _place(one), _state(one), _held(one))
        for one in found
    ]
    made = table("", columns, rows)
    made.columns[4].width = min(max(len(row[4]) for row in rows), _PATH_LETTERS)
    return made


def _narrow_table(found: Sequence[DatasetStatus]) -> Table:
    rows = [
        (
            one.name,
            f"{one.release.contents}; {_released(one)} images\nlicence: {one.release.licence}\n"
            f"found: {_place(one)}\nstate: {_state(one)}\nin the cache: {_held(one)}",
        )
        for one in found
    ]
    return table("", ("data set", "what it is, and what of it is here"), rows)


def _released(standing: DatasetStatus) -> str:
    return "any" if standing.release.n_images is None else str(standing.release.n_images)


def _place(standing: DatasetStatus) -> str:
    return standing.folder or ("drawn, not read" if standing.dataset else "-")


def _state(standing: DatasetStatus) -> str:
    return textwrap.shorten(standing.state, _STATE_LETTERS, placeholder=" ...")


def _held(standing: DatasetStatus) -> str:
    from nucseg_pipeline.datasets.status import first_sentence

    held = standing.cached
    if held is None:
        return "-"
    if held.problem:
        return textwrap.shorten(f"wrong: {first_sentence(held.problem)}", _STATE_LETTERS, placeholder=" ...")
    return f"{_count(held.n_images, 'image')}, {_count(held.n_embeddings, 'embedding')}"


def _show_one(name: str, source: Path | None, cache: str, *, read: bool) -> None:
    from nucseg.errors import DataError
    from nucseg_pipeline.datasets.status import check, find_dataset

    standing = find_dataset(name, cache, source)
    out.print(standing.release.title if standing.name == standing.release.name else name)
    for label, text in _known_facts(standing):
        out.print(_labelled(label, _wrapped(text)))
    for label, text in _place_facts(standing, source):
        out.print(_labelled(label, text))
    if standing.problem:
        raise DataError(standing.problem)
    if standing.dataset is None:
        return
    notes(standing.dataset.notes)
    if not read:
        out.print(f"{_count(len(standing.dataset.entries), 'image')} listed ({standing.state}), none read")
        return
    with progress_bar() as progress:
        found = check(standing.dataset, progress)
    _tell(found, standing)


def _known_facts(standing: DatasetStatus) -> list[tuple[str, str]]:
    from nucseg_pipeline.datasets.status import protocol_with_folds, size_summary

    known = standing.release
    return [
        ("contents", known.contents),
        ("images", "any number" if known.n_images is None else f"{known.n_images} in a whole copy"),
        ("licence", known.licence),
        ("to get it", "\n".join(f"{number}. {step}" for number, step in enumerate(known.instructions, 1))),
        ("layout", "\n".join(known.layout)),
        ("protocol", protocol_with_folds(standing)),
        ("cost", size_summary(standing)),
    ]


def _place_facts(standing: DatasetStatus, source: Path | None) -> list[tuple[str, str]]:
    """Never wrapped: an address and a path are there to be copied."""
    from nucseg_pipeline.datasets.locate import FOLDER, SYNTHETIC, places
    from nucseg_pipeline.datasets.status import NOT_FOUND

    held, known = standing.cached, standing.release
    looked = [source] if source else places(standing.name, held.source if held else "")
    own = known.name == FOLDER
    by = "put" if own else f"`nucseg fetch {known.name}` gets it; or put"
    missing = f"nothing: {by} it in one of these places, or name it with --source DIR"
    return [
        ("home", known.home or "-"),
        ("looked in", "-" if known.name == SYNTHETIC else "\n".join(str(place.absolute()) for place in looked)),
        ("found", missing if standing.state == NOT_FOUND else _place(standing)),
        ("in the cache", f"{held.problem or _held(standing)}\n{held.location}" if held else "nothing"),
    ]


def _labelled(label: str, text: str) -> str:
    return label.ljust(_LABEL_LETTERS) + textwrap.indent(text, " " * _LABEL_LETTERS)[_LABEL_LETTERS:]


def _wrapped(text: str) -> str:
    width = max(out.width - _LABEL_LETTERS, 40)
    wrap = textwrap.TextWrapper(width, break_long_words=False, break_on_hyphens=False)
    return "\n".join(wrap.fill(paragraph) for paragraph in text.splitlines())


def _tell(found: Check, standing: DatasetStatus) -> None:
    """What the check found; exits with 1 if an image could not be read."""
    count, nuclei = _count(found.n_images, "image"), f"{found.n_nuclei} nuclei"
    if not found.bad:
        whole = standing.is_complete
        out.print(f"complete: {count}, {nuclei}" if whole else f"{standing.state}, all can be read: {nuclei}")
        return
    out.print(f"{len(found.bad)} of {count} cannot be read; {nuclei} in the others")
    for id_, reason in found.bad[:_SHOWN_BAD]:
        err.print(f"{id_}: {reason}")
    if len(found.bad) > _SHOWN_BAD:
        err.print(f"and {len(found.bad) - _SHOWN_BAD} more")
    raise typer.Exit(FAILED)


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"
