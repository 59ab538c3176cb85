"""Options are the fields of the stage's configuration: none is missing, and each says what it does and its default."""

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from nucseg_pipeline.cli import app
from nucseg_pipeline.cli.options import field_docs, options_from
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

STAGES = {
    "embed": EmbedConfig,
    "train": TrainConfig,
    "report": ReportConfig,
    "predict": PredictConfig,
    "ablate": AblateConfig,
    "figures": FiguresConfig,
    "fidelity": FidelityConfig,
    "distill": DistillConfig,
}
OF_NO_FIELD = {"recipe", "help"}


def parameters(command: str) -> dict[str, Any]:
    group: Any = typer.main.get_command(app)
    return {parameter.name: parameter for parameter in group.commands[command].params if not parameter.hidden}


def help_of(command: str, columns: int = 80) -> str:
    return CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": str(columns)}).stdout


@pytest.mark.parametrize("stage", STAGES)
def test_every_field_is_an_option_or_an_argument(stage: str) -> None:
    assert set(parameters(stage)) - OF_NO_FIELD == {field.name for field in fields(STAGES[stage])} - OF_NO_FIELD


@pytest.mark.parametrize("stage", STAGES)
def test_every_option_says_what_it_does_and_what_happens_without_it(stage: str) -> None:
    for name, parameter in parameters(stage).items():
        if name in OF_NO_FIELD | {"dataset"}:  # a recipe may name the data set
            continue
        has_default = parameter.required or parameter.is_flag or isinstance(parameter.show_default, str)
        assert len(parameter.help) > 10, name
        assert has_default or parameter.default not in (None, ""), name


@pytest.mark.parametrize("stage", STAGES)
def test_the_help_fits_into_80_columns_with_every_name_in_full(stage: str) -> None:
    text = help_of(stage)
    flags = {flag for parameter in parameters(stage).values() for flag in parameter.opts if flag.startswith("--")}

    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    assert flags <= set(re.findall(r"--[\w-]+", text))


def test_options_are_grouped_and_their_defaults_are_those_of_the_configuration() -> None:
    text = help_of("train", columns=200)

    assert re.findall(r"╭─ (.+?) ─", text)[1:] == [
        "Data", "Embeddings", "Model", "Training", "Augmentation", "Machine", "Output",
    ]  # fmt: skip
    assert re.search(r"--epochs .*\n.*\[default: 50\]", text)
    assert re.search(r"--seed .*\n.*\[default: 0\]", text)
    assert re.search(r"--threads .*\n.*\[default: \(chosen by PyTorch\)\]", text)


def test_what_follows_a_field_is_its_text_on_one_line() -> None:
    docs = field_docs(TrainConfig)

    assert docs["width"] == "Channels at the finest level."
    assert docs["replay"].startswith("How the embedding is transformed: ")
    assert "\n" not in "".join(docs.values())
    assert set(docs) == {field.name for field in fields(TrainConfig)}


@pytest.fixture
def train(tmp_path: Path) -> Any:
    """The configuration that a command `train` gets from a recipe and options."""
    (tmp_path / "mine.toml").write_text('[train]\ndataset = "mine"\nepochs = 3\ndeep_supervision = true\n')

    def run(*options: str) -> TrainConfig:
        configs: list[TrainConfig] = []

        def train(config: TrainConfig, recipe: str | None) -> None:
            configs.append(config)

        command = typer.Typer()
        command.command()(options_from(TrainConfig, {"All": "dataset epochs deep_supervision"})(train))
        done = CliRunner().invoke(command, ["--recipe", str(tmp_path / "mine.toml"), *options])
        assert done.exit_code == 0, done.output
        return configs[0]

    return run


def test_an_option_overrides_the_recipe_even_with_the_default(train: Any) -> None:
    assert train().epochs == 3
    assert train("--epochs", "50").epochs == 50


def test_a_flag_of_a_recipe_can_be_switched_off(train: Any) -> None:
    assert train().deep_supervision
    assert not train("--no-deep-supervision").deep_supervision


def test_an_option_can_be_given_several_times() -> None:
    configs: list[DistillConfig] = []
    command = typer.Typer()
    command.command()(options_from(DistillConfig, {"All": "dataset views"})(configs.append))

    CliRunner().invoke(command, ["--dataset", "a", "--dataset", "b"])

    assert (configs[0].dataset, configs[0].views) == (("a", "b"), ())
