"""`nucseg fetch`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nucseg_pipeline.cli import completion
from nucseg_pipeline.cli.console import listing, out, progress_bar

if TYPE_CHECKING:
    from nucseg_pipeline.fetch.catalogue import Item

_MB, _GB = 10**6, 10**9


def fetch(
    name: Annotated[
        str | None,
        typer.Argument(
            autocompletion=completion.fetched, metavar="NAME", help="nuinsseg, vit_b, ...; without it, list everything."
        ),
    ] = None,
    local: Annotated[
        Path | None,
        typer.Option("--from", help="A file or folder that you have downloaded: verify it and put it in place."),
    ] = None,
) -> None:
    """Download a data set or weights, check them, and put them where the other commands look.

    Reads the publisher's server, or what --from names. Writes data sets to $NUCSEG_DATA/NAME (default
    ./data/NAME) and weights to $NUCSEG_WEIGHTS (default: the user's cache folder), each with a note of its digest
    beside it. An interrupted download continues where it stopped; what is complete is not downloaded again. For a data
    set that needs an account, the command prints what to do.
    """
    if name is not None:
        _fetch(name, local)
    elif local is not None:
        raise typer.BadParameter("--from needs the NAME of the data set or weights.")
    else:
        _show_all()


def _fetch(name: str, local: Path | None) -> None:
    from nucseg_pipeline.fetch import stage

    with progress_bar("MiB", reading="images") as progress:
        fetched = stage.fetch(name, local, progress=progress)
    out.print(f"{fetched.item.title}: {'fetched' if fetched.is_new else 'already there'}")
    for check in fetched.checks:
        out.print(f"  {check}")
    out.print(f"licence: {fetched.item.licence}")
    out.print(f"path: {fetched.path}")


def _show_all() -> None:
    from nucseg_pipeline.fetch.stage import survey

    rows = [
        (item.name, item.title, _size(item), item.licence, _how(item) if found is None else str(found))
        for item, found in survey()
    ]
    out.print(listing(("name", "what", "size", "licence", "here"), rows))
    out.print("`nucseg fetch NAME` downloads, verifies and unpacks one, or says what to do if an account is needed.")


def _size(item: Item) -> str:
    if not item.about_bytes:
        return "-"
    return f"{item.about_bytes / _GB:.1f} GB" if item.about_bytes >= _GB else f"{item.about_bytes / _MB:.0f} MB"


def _how(item: Item) -> str:
    return "no; needs an account" if item.needs_account else "no"
