"""Event files for TensorBoard, written while a run is trained."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from nucseg.errors import ConfigError
from nucseg_pipeline.train.events import EpochDone, Event, OnEvent, Started, StepDone

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

FOLDER = "tensorboard"
"""Folder of the event files, inside that of the run: `tensorboard --logdir runs` compares all runs."""


def check_log(log: str) -> None:
    """Raise ConfigError if the log needs a package that is not installed."""
    if log == "tensorboard" and find_spec("tensorboard") is None:
        raise ConfigError("log tensorboard needs the package tensorboard: pip install 'nucseg[tensorboard]'.")


@contextmanager
def logged(on_event: OnEvent, log: str) -> Iterator[OnEvent]:
    """A callback that passes every event on and, for the log `tensorboard`, writes it to the event files first."""
    if log == "none":
        yield on_event
        return
    with ExitStack() as stack:
        writers: list[SummaryWriter] = []

        def log_and_pass_on(event: Event) -> None:
            if isinstance(event, Started):
                writers.append(stack.enter_context(_open_writer(event.folder)))
            else:
                _write(writers[0], event)
            on_event(event)

        yield log_and_pass_on


def _open_writer(run: Path) -> SummaryWriter:
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(run / FOLDER)
    writer.add_text("configuration", f"```toml\n{(run / 'config.toml').read_text('utf-8')}\n```")
    return writer


def _write(writer: SummaryWriter, event: StepDone | EpochDone) -> None:
    """Scalars by step, counted over all epochs, and by epoch."""
    if isinstance(event, StepDone):
        writer.add_scalar("step/training loss", event.loss, (event.epoch - 1) * event.steps + event.step)
        return
    row = event.row
    values: dict[str, float | None] = {
        "training loss": row.train_loss,
        "validation loss": row.validation_loss,
        "validation Dice": row.validation_dice,
        "learning rate": row.learning_rate,
        "seconds": row.seconds,
    }
    for name, value in values.items():
        if value is not None:
            writer.add_scalar(f"epoch/{name}", value, row.epoch)
    writer.flush()
