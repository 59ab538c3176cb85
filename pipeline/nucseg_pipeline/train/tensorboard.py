"""What TensorBoard shows of a training, written beside the run as it goes on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from nucseg.errors import ConfigError
from nucseg_pipeline.train.events import EpochDone, Event, Progress, Started, StepDone

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

FOLDER = "tensorboard"
"""Folder of its event files, in that of the run: `tensorboard --logdir runs` shows all runs side by side."""


def check_log(log: str) -> None:
    """Raise ConfigError where a log is asked for whose package is missing."""
    if log == "tensorboard" and find_spec("tensorboard") is None:
        raise ConfigError("log tensorboard needs the package tensorboard: pip install 'nucseg[tensorboard]'.")


@contextmanager
def logged(progress: Progress, log: str) -> Iterator[Progress]:
    """A progress that passes everything on and, for the log `tensorboard`, writes it down first."""
    if log == "none":
        yield progress
        return
    with ExitStack() as stack:
        writers: list[SummaryWriter] = []

        def both(event: Event) -> None:
            if isinstance(event, Started):
                writers.append(stack.enter_context(_opened(event.folder)))
            else:
                _write(writers[0], event)
            progress(event)

        yield both


def _opened(run: Path) -> SummaryWriter:
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(run / FOLDER)
    writer.add_text("configuration", f"```toml\n{(run / 'config.toml').read_text('utf-8')}\n```")
    return writer


def _write(writer: SummaryWriter, event: StepDone | EpochDone) -> None:
    """Scalars by step, counted on over epochs, and by epoch."""
    if isinstance(event, StepDone):
        writer.add_scalar("step/training loss", event.loss, (event.epoch - 1) * event.steps + event.step)
        return
    row = event.row
    values = {
        "training loss": row.train_loss,
        "validation loss": row.validation_loss,
        "validation Dice": row.validation_dice,
        "learning rate": row.learning_rate,
        "seconds": row.seconds,
    }
    for name, value in values.items():
        writer.add_scalar(f"epoch/{name}", value, row.epoch)
    writer.flush()
