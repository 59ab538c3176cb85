"""`nucseg cache`: show, verify and prune a store."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nucseg_pipeline.cli import completion
from nucseg_pipeline.cli.console import FAILED, err, out, progress_bar, table

if TYPE_CHECKING:
    from nucseg_cache.verify import Finding

app = typer.Typer(no_args_is_help=True, help="Show, verify or prune a store.")

StoreArgument = Annotated[
    str,
    typer.Argument(
        metavar="STORE",
        autocompletion=completion.stores,
        help="Name of a data set in the cache, or folder or URL of a store (CACHE/DATASET.zarr).",
    ),
]

CacheOption = Annotated[
    str | None,
    typer.Option(
        "--cache",
        help="Folder or URL of the cache that holds the data set.",
        show_default="$NUCSEG_CACHE, or nucseg in the user's cache folder",
    ),
]

_MIB, _GIB = 1 << 20, 1 << 30


@app.command()
def info(store: StoreArgument, cache: CacheOption = None) -> None:
    """Show the content of a store: its samples, and its embeddings with what they were computed from. Reads only."""
    from nucseg_cache import Store

    opened = Store.open(_location(store, cache))
    rows, n_bytes_of_all = opened.table, opened.file_bytes()
    out.print(f"{opened.location}: {opened.dataset}, from {opened.source or 'no folder'}")
    out.print(f"{sum(row.present for row in rows)} samples present, {sum(not row.present for row in rows)} absent; "
              + ", ".join(f"{name} {value}" for name, value in opened.preparation.items()))  # fmt: skip
    for key in opened.keys():  # noqa: SIM118 - a method of Store, which is no dictionary
        recorded = {name: value for name, value in opened.recorded(key).items() if value}
        out.print(table(key.hash, ("field", "value"), [*key.fields.items(), *recorded.items()]))
        for view in sorted(opened.views(key), key=lambda view: (view != "identity", view)):
            n_rows, n_bytes = opened.embeddings(key, view).file_bytes()
            n_bytes_of_all += n_bytes
            out.print(f"{key.hash}/{view}: {n_rows} embeddings, {n_bytes / _MIB:.1f} MiB")
    # sizes recorded at writing: reading those of the files takes a minute for a hundred thousand rows
    out.print(f"{n_bytes_of_all / _GIB:.3f} GiB in the files of images, masks and embeddings")


@app.command()
def verify(
    store: StoreArgument,
    cache: CacheOption = None,
    keep: Annotated[bool, typer.Option("--keep", help="Only report bad rows; do not clear their records.")] = False,
) -> None:
    """Read everything in a store and compare it with the recorded checksums.

    Clears the records of bad rows, so that the next `nucseg embed` recomputes them. Exits with 1 if there were any.
    """
    from nucseg_cache import verify as verify_store

    location = _location(store, cache)
    with progress_bar("rows") as progress:
        found = verify_store(location, clear=not keep, progress=lambda done, total: progress(done, total, "reading"))
    out.print(f"{found.n_samples} samples and {found.n_embeddings} embeddings read, {len(found.findings)} bad")
    for finding in found.findings:
        err.print(f"{finding.what}: {finding.bad}")
    if found.findings:
        for command in _repairs(location, found.findings):
            err.print(f"`{command}` recomputes bad rows and keeps all others.")
        raise typer.Exit(FAILED)


@app.command()
def prune(
    store: StoreArgument,
    cache: CacheOption = None,
    key: Annotated[
        list[str] | None,
        typer.Option(help="Embeddings to delete, HASH or HASH/VIEW as in `cache info`. Can be given several times."),
    ] = None,
) -> None:
    """Delete embeddings by their key, or one view of them, and files left behind by killed processes.

    Reads the store's keys. Nothing else is deleted: samples and other embeddings stay.
    """
    from nucseg_cache import prune as prune_store

    done = prune_store(_location(store, cache), keys=key or ())
    n_views = sum("/" in name for name in done.keys)
    views = f"{n_views} views, " if n_views else ""
    out.print(f"{views}{len(done.keys) - n_views} keys and {done.n_leftovers} leftovers deleted")


def _location(store: str, cache: str | None) -> str:
    """The location of a store that is given by its place, or by the name of its data set."""
    if "/" in store or store.endswith(".zarr") or (Path(store) / "zarr.json").exists():
        return store
    from nucseg_pipeline.config import default_cache
    from nucseg_pipeline.datasets.stores import open_store

    return open_store(cache or default_cache(), store).location


def _repairs(location: str, findings: Sequence[Finding]) -> Iterator[str]:
    """The commands that compute bad rows again: one for the samples, and one for each view of each key."""
    from nucseg_cache import Store
    from nucseg_cache.errors import minimal_embed_command

    fields = {key.hash: key.fields for key in Store.open(location).keys()}  # noqa: SIM118 - a method of Store
    for what in dict.fromkeys(finding.what for finding in findings):
        key_hash, _, view = what.partition("/")
        yield minimal_embed_command(location, fields.get(key_hash, {}), view)
