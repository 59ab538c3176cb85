"""`nucseg train`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from nucseg_pipeline.cli.console import clock, notes, out, table
from nucseg_pipeline.cli.options import options_from
from nucseg_pipeline.config import TrainConfig

if TYPE_CHECKING:
    from rich.console import RenderableType

    from nucseg_pipeline.train.events import EpochDone, Started, StepDone

SHOWN_EPOCHS = 12
"""Lines of the live table."""


@options_from(
    TrainConfig,
    {
        "Data": "dataset cache split fold epoch_images validation_images",
        "Embeddings": "encoder weights precision format",
        "Model": "model fusion tissue_only width activation dropout deep_supervision classification_guided "
        "instance_head",
        "Training": "epochs batch_size learning_rate schedule mixed_precision seed resume",
        "Augmentation": "augmentation replay views photometric",
        "Machine": "device threads preload",
        "Output": "run log",
    },
    flags={"resume": "--resume"},
)
def train(config: TrainConfig, recipe: str | None) -> None:
    """Stage two: train a network guided by cached embeddings; the encoder is not loaded.

    Reads CACHE/DATASET.zarr. Writes runs/NAME/: configuration, split, checkpoints, epochs.csv, and the rule that turns
    probabilities into nuclei. Everything is chosen on the validation set; the test set is not read.
    """
    run_train(config)


def run_train(config: TrainConfig) -> None:
    """Run stage two and print the result."""
    from nucseg_pipeline.train.stage import train as train_stage

    with show_training() as show:
        result = train_stage(config, show)
    n_trained = result.epochs_trained
    trained = f"{n_trained} epoch{'s' if n_trained != 1 else ''} trained" if n_trained else "was finished already"
    out.print(f"{trained}; best of {result.epochs}: epoch {result.best_epoch}, "
              f"validation Dice {result.validation_dice:.4f}")  # fmt: skip
    out.print(f"run: {result.folder}")


@contextmanager
def show_training() -> Iterator[Callable[[Started | StepDone | EpochDone], None]]:
    """Yield a callback that shows a training: a live table in a terminal, one line per epoch elsewhere."""
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
    """The state of a training, and how it is displayed."""

    def __init__(self) -> None:
        self.started: Started | None = None
        self.step: StepDone | None = None
        self.epochs: list[EpochDone] = []

    def note(self, event: Started | StepDone | EpochDone) -> None:
        """Record an event; the start is printed at once, since it does not change."""
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
        """Record an event, and print one line per epoch."""
        self.note(event)
        if self.epochs and event is self.epochs[-1]:
            cells = zip(_COLUMNS, self._cells(self.epochs[-1]), strict=True)
            out.print(", ".join(f"{name} {cell}" for name, cell in cells if cell))

    def rendered(self) -> RenderableType:
        """The last epochs as a table, and the current step."""
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
