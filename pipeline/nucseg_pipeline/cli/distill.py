"""`nucseg distill`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nucseg_pipeline.cli import completion
from nucseg_pipeline.cli.console import notes, out, progress_bar

if TYPE_CHECKING:
    from nucseg_pipeline.config import DistillConfig
    from nucseg_pipeline.distill.trainer import EpochTold


def distill(
    dataset: Annotated[
        list[str] | None,
        typer.Option(
            autocompletion=completion.datasets,
            metavar="NAME",
            help="Name of a data set, as it was embedded; can be given several times.",
        ),
    ] = None,
    teacher: Annotated[
        str | None,
        typer.Option(
            autocompletion=completion.encoders, help="The encoder whose embeddings are learned; vit_b by default."
        ),
    ] = None,
    weights: Annotated[Path | None, typer.Option(help="Ask for embeddings of this checkpoint.")] = None,
    precision: Annotated[str | None, typer.Option(help="Ask for embeddings of this precision.")] = None,
    format: Annotated[  # noqa: A002 - the option's name
        str | None, typer.Option(help="Ask for embeddings in this storage format.")
    ] = None,
    views: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="What to show beside the images as they are: d4, crops, ..., or identity for nothing; can be given "
            "several times. "
            "Default: all views that are in the cache; see `nucseg embed --views`.",
        ),
    ] = None,
    size: Annotated[str | None, typer.Option(help="small, medium, large (default).")] = None,
    split: Annotated[str | None, typer.Option(help="official (default), grouped, kfold, paper.")] = None,
    fold: Annotated[int | None, typer.Option(help="Which fold is the test part, from 0.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over all views; 30 by default.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="16 by default.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="2e-3 by default.")] = None,
    seed: Annotated[int | None, typer.Option(help="0 by default.")] = None,
    mixed_precision: Annotated[str | None, typer.Option(help="no (default), bf16.")] = None,
    device: Annotated[str | None, typer.Option(help="auto (default), cpu, cuda, cuda:N, mps.")] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads. Default: torch's choice.")] = None,
    recipe: Annotated[
        str | None, typer.Option(autocompletion=completion.recipes, help="Name or file of a recipe; options beat it.")
    ] = None,
    cache: Annotated[
        str | None, typer.Option(help="Folder or URL of the cache. Default: $NUCSEG_CACHE, user cache.")
    ] = None,
    out_folder: Annotated[
        Path | None, typer.Option("--out", help="Folder of the student. Default: students/DATASETS-SIZE.")
    ] = None,
) -> None:
    """Teach a small, fast encoder the cached embeddings of a large one; no encoder is run, no native image read.

    Reads CACHE/DATASET.zarr. Writes student.safetensors for `--encoder student:FILE`, fidelity.json, card.md,
    epochs.csv and checkpoints. The same command goes on where it was stopped.
    """
    from nucseg_pipeline.config import DistillConfig
    from nucseg_pipeline.config.recipe import load_recipe, load_record, resolve

    options = {
        "dataset": tuple(dataset) if dataset else None, "teacher": teacher, "weights": weights,
        "precision": precision, "format": format, "views": tuple(views) if views else None, "size": size,
        "split": split, "fold": fold, "epochs": epochs, "batch_size": batch_size, "learning_rate": learning_rate,
        "seed": seed, "mixed_precision": mixed_precision, "device": device, "threads": threads, "cache": cache,
        "out": out_folder,
    }  # fmt: skip
    config = resolve(DistillConfig, load_recipe(recipe, "distill") if recipe else {}, options)
    run_distill(config, load_record(recipe) if recipe else "")


def run_distill(config: DistillConfig, recorded: str) -> None:
    """Distill, and say what came out; `recorded` is the digest that the recipe's student had, or empty."""
    from nucseg_pipeline.distill.stage import distill as distill_stage

    with progress_bar("steps") as progress:
        result = distill_stage(config, progress, _show, notes)
    learned = f"{result.epochs_learned} epochs learned" if result.epochs_learned else "was finished already"
    out.print(f"{learned}; best of {result.epochs}: epoch {result.best_epoch}")
    for name, found in result.fidelity.items():
        fits = ", ".join(f"{measure.replace('_', ' ')} {value.value:.3f}" for measure, value in found.student.items())
        unseen = ", ".join(f"{value.value:.3f}" for value in found.pattern.values())
        out.print(f"{name}, {found.n_images} test images: {fits} (the mean embedding at each place: {unseen})")
    if recorded:
        same = "as the recipe records" if recorded == result.digest else f"another than the recipe records ({recorded})"
        out.print(f"xxh128 {result.digest}, {same}")
    out.print(f"student: {result.file} ({result.n_bytes / 1e6:.2f} MB)")


def _show(row: EpochTold) -> None:
    out.print(
        f"epoch {row.epoch}: training error {row.train_error:.4f}, validation error {row.validation_error:.4f}, "
        f"{row.seconds:.1f} s"
    )
