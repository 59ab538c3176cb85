"""What TensorBoard reads of a run is what the run wrote down of itself."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nucseg.errors import ConfigError
from nucseg_pipeline.config import TrainConfig
from nucseg_pipeline.train import tensorboard
from nucseg_pipeline.train.events import EpochDone, Event, StepDone
from nucseg_pipeline.train.stage import train


def scalars(run: Path) -> dict[str, list[tuple[int, float]]]:
    """Tag -> steps with values, as TensorBoard's own reader finds them."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(run / tensorboard.FOLDER))
    events.Reload()
    return {tag: [(scalar.step, scalar.value) for scalar in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_epochs_and_steps_are_those_of_the_run(training: Callable[..., TrainConfig]) -> None:
    config = training(epochs=2, log="tensorboard")
    steps: list[StepDone] = []

    def watch(event: Event) -> None:
        steps.extend([event] if isinstance(event, StepDone) else [])

    train(config, watch)

    found = scalars(config.folder)
    with (config.folder / "epochs.csv").open() as file:
        rows = list(csv.DictReader(file))
    columns = {
        "training loss": "train_loss",
        "validation loss": "validation_loss",
        "validation Dice": "validation_dice",
    }
    for tag, column in columns.items():
        assert found[f"epoch/{tag}"] == [
            (number, pytest.approx(float(row[column]), rel=1e-6)) for number, row in enumerate(rows, 1)
        ]
    assert found["step/training loss"] == [
        (number, pytest.approx(step.loss, rel=1e-6)) for number, step in enumerate(steps, 1)
    ]


def test_a_resumed_run_continues_its_curves(training: Callable[..., TrainConfig]) -> None:
    def stop(event: Event) -> None:
        if isinstance(event, EpochDone):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(training(epochs=2, log="tensorboard"), stop)
    resumed = training(epochs=2, log="tensorboard", resume=True)
    train(resumed)

    assert [step for step, _ in scalars(resumed.folder)["epoch/validation Dice"]] == [1, 2]


def test_nothing_is_logged_unless_it_is_asked_for(training: Callable[..., TrainConfig]) -> None:
    config = training(epochs=1)
    train(config)

    assert not (config.folder / tensorboard.FOLDER).exists()


def test_a_missing_package_is_named_before_anything_is_written(
    training: Callable[..., TrainConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    def find_spec(name: str) -> Any:
        return None

    monkeypatch.setattr(tensorboard, "find_spec", find_spec)
    config = training(log="tensorboard")

    with pytest.raises(ConfigError, match=r"pip install 'nucseg\[tensorboard\]'"):
        train(config)
    assert not config.folder.exists()
