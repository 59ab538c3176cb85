"""What a run records of each epoch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class EpochRecord:
    """One line of epochs.csv."""

    epoch: int
    """Counted from 1."""
    train_loss: float
    """Mean over the images shown, as they were shown (turned, with dropout)."""
    validation_loss: float
    validation_dice: float
    """Foreground Dice at threshold 0.5, mean over the validation images."""
    learning_rate: float
    """At the first step of the epoch."""
    seconds: float
    """Wall time of training and validation."""
