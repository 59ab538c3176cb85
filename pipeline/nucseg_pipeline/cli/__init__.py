"""The command line: each command parses its options, calls a stage and prints the result."""

from __future__ import annotations

from typing import Annotated

import typer

from nucseg_pipeline.cli.ablate import ablate
from nucseg_pipeline.cli.cache import app as cache_app
from nucseg_pipeline.cli.console import Commands, out
from nucseg_pipeline.cli.datasets import datasets
from nucseg_pipeline.cli.demo import demo
from nucseg_pipeline.cli.distill import distill
from nucseg_pipeline.cli.embed import embed
from nucseg_pipeline.cli.fetch import fetch
from nucseg_pipeline.cli.fidelity import fidelity
from nucseg_pipeline.cli.figures import figures
from nucseg_pipeline.cli.models import models
from nucseg_pipeline.cli.predict import predict
from nucseg_pipeline.cli.report import report
from nucseg_pipeline.cli.train import train

app = typer.Typer(
    cls=Commands,
    name="nucseg",
    epilog="fetch -> embed -> train -> report; predict applies a trained run to new images",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",  # joins the lines of a paragraph
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(is_asked: bool) -> None:
    if is_asked:
        from importlib.metadata import version

        out.print(version("nucseg"))
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """SAM-guided nuclei segmentation in H&E images, from embeddings that are computed once and cached."""


for command in (
    fetch, embed, train, report, predict, ablate, figures, fidelity, distill, datasets, models, demo,
):  # fmt: skip
    app.command()(command)
app.add_typer(cache_app, name="cache")

__all__ = ["app"]
