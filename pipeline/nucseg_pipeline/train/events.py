"""What a training reports while it runs."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from nucseg_pipeline.runs.history import EpochRecord


@dataclass(frozen=True)
class Started:
    """Everything is read and checked; the first step follows."""

    folder: Path
    device: str
    n_parameters: int
    n_train: int
    n_validation: int
    n_test: int
    epochs_done: int
    """Epochs finished before, when the run is resumed."""
    epochs: int
    notes: tuple[str, ...]
    """What a reader has to know of the split and the embeddings."""


@dataclass(frozen=True)
class StepDone:
    """One step of the optimiser; epoch and step count from 1."""

    epoch: int
    step: int
    steps: int
    loss: float


@dataclass(frozen=True)
class EpochDone:
    """An epoch is finished and its checkpoint is on disk."""

    row: EpochRecord
    is_best: bool
    """Whether it is the best epoch so far."""


Event = Started | StepDone | EpochDone

OnEvent = Callable[[Event], None]
"""Called in the main process; an exception it raises stops the training and reaches the caller."""
