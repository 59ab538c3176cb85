"""What a training records of each epoch, and epochs.csv, which holds it."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class EpochRecord:
    """One line of epochs.csv."""

    epoch: int
    """Counted from 1."""
    train_loss: float
    """Mean over the images, as they were seen in training (augmented, with dropout)."""
    validation_loss: float
    validation_dice: float | None = None
    """Foreground Dice at threshold 0.5, mean over the validation images; None for a distillation."""
    learning_rate: float
    """At the first step of the epoch."""
    seconds: float
    """Wall time of training and validation."""

    @property
    def score(self) -> float:
        """What epochs are compared by, the higher the better: the Dice, or without one the negative loss."""
        return -self.validation_loss if self.validation_dice is None else self.validation_dice


def best_epoch(history: Sequence[EpochRecord]) -> EpochRecord:
    """The epoch with the highest score; the first of equals."""
    return max(history, key=lambda record: record.score)


def history_csv(history: Sequence[EpochRecord]) -> str:
    """The content of epochs.csv, for at least one epoch; what is None has no column."""
    rows = [{name: value for name, value in asdict(record).items() if value is not None} for record in history]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def read_history(file: Path) -> list[dict[str, float]]:
    """The rows of epochs.csv.

    Raises:
        OSError, ValueError: the file cannot be read, is no such table, or has no rows.
    """
    try:
        with file.open(newline="") as opened:
            rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(opened)]
    except (TypeError, csv.Error) as error:
        raise ValueError(str(error)) from None
    if not rows:
        raise ValueError("it is empty")
    return rows
