"""`nucseg train`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nucseg_pipeline.cli import completion
from nucseg_pipeline.cli.console import clock, notes, out, table

if TYPE_CHECKING:
    from rich.console import RenderableType

    from nucseg_pipeline.config import TrainConfig
    from nucseg_pipeline.train.events import EpochDone, Started, StepDone

SHOWN_EPOCHS = 12
"""Lines of the live table."""


def train(
    dataset: Annotated[
        str | None, typer.Option(autocompletion=completion.datasets, help="Name of the data set, as it was embedded.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Architecture: unet, ddunet, unet3plus, eunet3plus (default).")
    ] = None,
    fusion: Annotated[
        str | None,
        typer.Option(help="How the embedding enters: none, concat, xgfb (default), xgfb_reference, multiscale."),
    ] = None,
    activation: Annotated[
        str | None, typer.Option(help="relu, leaky_relu, swish, glu. Default: glu in eunet3plus, relu in the others.")
    ] = None,
    encoder: Annotated[
        str | None, typer.Option(autocompletion=completion.encoders, help="Whose embeddings to use; vit_b by default.")
    ] = None,
    weights: Annotated[Path | None, typer.Option(help="Ask for embeddings of this checkpoint.")] = None,
    precision: Annotated[str | None, typer.Option(help="Ask for embeddings of this precision.")] = None,
    format: Annotated[  # noqa: A002 - the option's name
        str | None, typer.Option(help="Ask for embeddings in this storage format.")
    ] = None,
    split: Annotated[str | None, typer.Option(help="official (default), grouped, kfold, paper.")] = None,
    fold: Annotated[int | None, typer.Option(help="Which fold is the test part, from 0.")] = None,
    epochs: Annotated[int | None, typer.Option(help="50 by default.")] = None,
    width: Annotated[int | None, typer.Option(help="Channels of the finest level; 32 by default.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="16 by default.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="1e-4 by default.")] = None,
    schedule: Annotated[str | None, typer.Option(help="constant (default) or cosine.")] = None,
    augmentation: Annotated[
        str | None, typer.Option(help="d4 (default), papers, none, or a file of transforms.")
    ] = None,
    replay: Annotated[
        str | None, typer.Option(help="How embeddings follow: corrected (default), learned, plain, none.")
    ] = None,
    views: Annotated[
        str | None,
        typer.Option(help="Exact views to read: identity (default), d4, or a photometric recipe; see `embed --views`."),
    ] = None,
    deep_supervision: Annotated[
        bool | None, typer.Option("--deep-supervision/--no-deep-supervision", help="A loss at every decoder level.")
    ] = None,
    classification_guided: Annotated[
        bool | None,
        typer.Option(
            "--classification-guided/--no-classification-guided",
            help="A branch that learns whether there is any nucleus, and rules out images where it finds none.",
        ),
    ] = None,
    instance_head: Annotated[
        str | None, typer.Option(help="What tells touching nuclei apart: none (default), distance.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="0 by default.")] = None,
    mixed_precision: Annotated[str | None, typer.Option(help="no (default), bf16, fp16.")] = None,
    device: Annotated[str | None, typer.Option(help="auto (default), cpu, cuda, cuda:N, mps.")] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads. Default: torch's choice.")] = None,
    preload: Annotated[
        str | None, typer.Option(help="Keep rows in memory: on, off, auto (default: when they fit in half of it).")
    ] = None,
    log: Annotated[
        str | None, typer.Option(help="none (default), or tensorboard: event files in the run's folder.")
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(autocompletion=completion.recipes, help="Name or file of a recipe; options beat it.")
    ] = None,
    run: Annotated[Path | None, typer.Option(help="Folder of the run. Default: runs/WHAT-IS-TRAINED.")] = None,
    resume: Annotated[bool | None, typer.Option("--resume", help="Go on with a run that was interrupted.")] = None,
    cache: Annotated[
        str | None, typer.Option(help="Folder or URL of the cache. Default: $NUCSEG_CACHE, user cache.")
    ] = None,
) -> None:
    """Stage two: train a network guided by cached embeddings; the encoder is not loaded.

    Reads CACHE/DATASET.zarr. Writes runs/NAME/: configuration, split, checkpoints, epochs.csv, and the rule that
    turns probabilities into nuclei. Everything is chosen on the validation part; the test part is not read.
    """
    from nucseg_pipeline.config import TrainConfig
    from nucseg_pipeline.config.recipe import load_recipe, resolve

    options = {
        "dataset": dataset, "model": model, "fusion": fusion, "encoder": encoder, "weights": weights,
        "precision": precision, "format": format, "split": split, "fold": fold, "epochs": epochs, "width": width,
        "activation": activation, "classification_guided": classification_guided, "instance_head": instance_head,
        "batch_size": batch_size, "learning_rate": learning_rate, "schedule": schedule, "augmentation": augmentation,
        "replay": replay, "views": views,
        "deep_supervision": deep_supervision, "seed": seed, "mixed_precision": mixed_precision,
        "device": device, "threads": threads, "preload": preload, "log": log,
        "run": run, "resume": resume, "cache": cache,
    }  # fmt: skip
    config = resolve(TrainConfig, load_recipe(recipe, "train") if recipe else {}, options)
    run_train(config)


def run_train(config: TrainConfig) -> None:
    """Run stage two and say what came out."""
    from nucseg_pipeline.train.stage import train as train_stage

    with show_training() as show:
        result = train_stage(config, show)
    trained = f"{result.epochs_trained} epochs trained" if result.epochs_trained else "was finished already"
    out.print(f"{trained}; best of {result.epochs}: epoch {result.best_epoch}, "
              f"validation Dice {result.validation_dice:.4f}")  # fmt: skip
    out.print(f"run: {result.folder}")


@contextmanager
def show_training() -> Iterator[Callable[[Started | StepDone | EpochDone], None]]:
    """A callback that shows a training: a live table in a terminal, one line an epoch elsewhere."""
    view = _Training()
    if not out.is_terminal:
        yield view.print_line
        return
    from rich.live import Live

    with Live(console=out, refresh_per_second=4) as live:

        def show(event: Started | StepDone | EpochDone) -> None:
            view.note(event)
            live.update(view.rendered())

        yield show


class _Training:
    """What is known of a training so far, and how it is put."""

    def __init__(self) -> None:
        self.started: Started | None = None
        self.step: StepDone | None = None
        self.epochs: list[EpochDone] = []

    def note(self, event: Started | StepDone | EpochDone) -> None:
        """Take in an event; the start is told at once, since it never changes."""
        from nucseg_pipeline.train.events import EpochDone, Started

        if isinstance(event, Started):
            self.started = event
            notes(event.notes)
            out.print(_start(event))
        elif isinstance(event, EpochDone):
            self.epochs.append(event)
        else:
            self.step = event

    def print_line(self, event: Started | StepDone | EpochDone) -> None:
        """One line an epoch."""
        self.note(event)
        if self.epochs and event is self.epochs[-1]:
            cells = zip(_COLUMNS, self._cells(self.epochs[-1]), strict=True)
            out.print(", ".join(f"{name} {cell}" for name, cell in cells if cell))

    def rendered(self) -> RenderableType:
        """The last epochs as a table, and the step under way."""
        from rich.console import Group
        from rich.text import Text

        step = self.step
        under_way = f"epoch {step.epoch}: step {step.step} of {step.steps}, loss {step.loss:.4f}" if step else ""
        rows = [self._cells(done) for done in self.epochs[-SHOWN_EPOCHS:]]
        return Group(table("", _COLUMNS, rows), Text(under_way))

    def _cells(self, done: EpochDone) -> list[str]:
        row = done.row
        total = self.started.epochs if self.started else row.epoch
        return [
            f"{row.epoch}/{total}",
            f"{row.train_loss:.4f}",
            f"{row.validation_loss:.4f}",
            f"{row.validation_dice:.4f}",
            f"{row.seconds:.1f} s",
            clock((total - row.epoch) * row.seconds),
            "best" if done.is_best else "",
        ]


_COLUMNS = ("epoch", "training loss", "validation loss", "validation Dice", "took", "to go", "")


def _start(event: Started) -> str:
    resumed = f", {event.epochs_done} epochs done before" if event.epochs_done else ""
    return (
        f"{event.folder}: {event.n_train} training, {event.n_validation} validation, {event.n_test} test images; "
        f"{event.n_parameters:,} parameters on {event.device}{resumed}"
    )
