"""`nucseg fetch`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nucseg_pipeline.cli import completion
from nucseg_pipeline.cli.console import out, progress_bar, table

if TYPE_CHECKING:
    from nucseg_pipeline.fetching.catalogue import Item

_MB, _GB = 10**6, 10**9


def fetch(
    name: Annotated[
        str | None,
        typer.Argument(
            autocompletion=completion.fetched, metavar="NAME", help="nuinsseg, vit_b, ...; without it, what there is."
        ),
    ] = None,
    given: Annotated[
        Path | None,
        typer.Option(
            "--from",
            help="What you have downloaded, a file or a folder: is checked and put in place instead.",
        ),
    ] = None,
) -> None:
    """Download a data set or weights, check them, and put them where the other commands look.

    Reads its publisher's server, or what --from names. Writes data sets to $NUCSEG_DATA/NAME (default ./data/NAME) and
    weights to $NUCSEG_WEIGHTS (default: the user's cache folder), each with a note of its digest beside it. An
    interrupted download goes on where it stopped; what is there already is left as it is. What needs an account is
    not downloaded: then NAME tells what to do.
    """
    if name is not None:
        _fetch(name, given)
    elif given is not None:
        raise typer.BadParameter("--from goes with the NAME of what it is.")
    else:
        _show_all()


def _fetch(name: str, given: Path | None) -> None:
    from nucseg_pipeline.fetch import fetch as fetch_stage

    with progress_bar("MiB", reading="images") as progress:
        fetched = fetch_stage(name, given, progress=progress)
    out.print(f"{fetched.item.title}: {'fetched' if fetched.is_new else 'there already'}")
    for check in fetched.checks:
        out.print(f"  {check}")
    out.print(f"licence: {fetched.item.licence}")
    out.print(f"lies in: {fetched.place}")


def _show_all() -> None:
    from nucseg_pipeline.fetch import survey

    rows = [
        (item.name, item.title, _size(item), item.licence, _how(item) if found is None else str(found))
        for item, found in survey()
    ]
    shown = table("", ("name", "what", "size", "licence", "here"), rows)
    shown.title, shown.show_lines = None, True
    for column in shown.columns:
        column.justify, column.overflow = "left", "fold"
    out.print(shown)
    out.print("`nucseg fetch NAME` downloads, checks and unpacks one, or says what to do where an account is needed.")


def _size(item: Item) -> str:
    if not item.about_bytes:
        return "-"
    return f"{item.about_bytes / _GB:.1f} GB" if item.about_bytes >= _GB else f"{item.about_bytes / _MB:.0f} MB"


def _how(item: Item) -> str:
    return "no; needs an account" if item.by_hand else "no"
