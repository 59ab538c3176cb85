"""The command of a configuration, given to the command line, makes the same configuration."""

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from nucseg_pipeline.cli import app
from nucseg_pipeline.config import (
    AblateConfig,
    DistillConfig,
    EmbedConfig,
    FidelityConfig,
    FiguresConfig,
    PredictConfig,
    ReportConfig,
    TrainConfig,
)
from nucseg_pipeline.config.commands import command

CONFIGURATIONS = [
    EmbedConfig(dataset="mine@macenko", source=Path("my slides"), weights=Path("a'b.pth"), views="d4", view_images=16),
    EmbedConfig(dataset="mine", encoder="onnx:my encoder.onnx", cache="s3://bucket/a cache", limit=3),
    TrainConfig(dataset="mine", encoder="student", deep_supervision=True, learning_rate=0.002, run=Path("runs/a b")),
    TrainConfig(dataset="mine", fusion="none", epoch_images=10, resume=True),
    ReportConfig(runs=(Path("runs/a"), Path("runs/b")), names=("the first", "b"), datasets=("x", "y"), seed=3),
    PredictConfig(images=(Path("a.svs"), Path("b c")), run=Path("run"), out=Path("out"), mpp=0.25, everything=True),
    AblateConfig(recipe="fusion", datasets=("x", "y"), seeds=(1, 2), quick=True, jobs=2),
    FiguresConfig(runs=(Path("runs/a"),), images=("image [1]", "2"), n_images=4, format="svg"),
    FidelityConfig(dataset="mine", images=3, transforms=("d4", "elastic"), photometric=("density x0.5", "papers")),
    DistillConfig(dataset=("x", "y"), views=("d4", "crops"), teacher="vit_l"),
]


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """Runs a command up to the call of its stage, and returns the configuration that the stage is called with."""

    class Called(Exception):
        pass

    def stop(config: object, *others: object, **more: object) -> None:
        raise Called(config)

    for stage in ("ablate", "distill", "embed", "fidelity", "figures", "predict", "report", "train"):
        monkeypatch.setattr(f"nucseg_pipeline.{stage}.stage.{stage}", stop)

    def parse(line: str) -> Any:
        program, *words = shlex.split(line)
        called = CliRunner().invoke(app, words).exception
        assert (program, type(called)) == ("nucseg", Called), called
        return called.args[0]

    return parse


@pytest.mark.parametrize("config", CONFIGURATIONS, ids=lambda config: type(config).__name__)
def test_a_command_can_be_pasted(config: Any, parsed: Callable[[str], Any]) -> None:
    assert parsed(command(config)) == config


def test_options_that_are_off_or_without_a_value_can_be_stated(parsed: Callable[[str], Any]) -> None:
    config = TrainConfig(dataset="mine", fusion="none")

    line = command(config, always=("fusion", "threads"), deep_supervision=False)

    assert line == "nucseg train --no-deep-supervision --dataset mine --fusion none"
    assert parsed(line) == config


def test_options_are_stated_and_left_out_as_asked() -> None:
    config = TrainConfig(dataset="mine", width=8, encoder="vit_b")

    line = command(config, without=("width",), always=("encoder",), recipe="nuinsseg-cpu")

    assert line == "nucseg train --recipe nuinsseg-cpu --dataset mine --encoder vit_b"
