"""`nucseg models` on the command line, and the choices that the help of `nucseg train` lists."""

import re
import sys

import pytest
import torch
from typer.testing import CliRunner, Result

from nucseg.models import ACTIVATIONS, FUSIONS, INSTANCE_HEADS, MODELS, Costs, ModelConfig, build_model, count_costs
from nucseg_pipeline.cli import app
from nucseg_pipeline.cli.console import out


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(out, "width", 80)


def nucseg(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})


def rows(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines() if line.startswith("│")]


def test_help_says_that_it_only_reads() -> None:
    assert "Reads only" in nucseg("models", "--help").stdout


def test_every_network_is_shown_with_every_fusion_and_its_source(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nucseg.models.count_costs", lambda model, input_px: Costs(parameters=1, flops=1))

    result = nucseg("models")

    assert result.exit_code == 0, result.output
    assert [row[:2] for row in rows(result.stdout)] == [[model, fusion] for model in MODELS for fusion in FUSIONS]
    for name, model in MODELS.items():
        assert f"{name}: {model.source}; activation {model.own_activation}" in result.stdout
    assert ", ".join(ACTIVATIONS) in result.stdout
    assert max(map(len, result.stdout.split("unet: ")[0].splitlines())) <= 80


def test_the_numbers_are_the_costs_of_the_network_asked_for() -> None:
    result = nucseg("models", "--model", "unet3plus", "--fusion", "concat", "--width", 64, "--input-px", 512)

    with torch.device("meta"):
        costs = count_costs(build_model("unet3plus", ModelConfig(width=64, fusion="concat")), 512)
    assert rows(result.stdout) == [["unet3plus", "concat", f"{costs.parameters:,}", f"{costs.flops / 1e9:.2f}"]]
    assert result.stdout.startswith("width 64, one image of 512 px:\n")
    assert "eunet3plus" not in result.stdout


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (("--model", "unet9"), f"'unet9' is not known. Did you mean 'unet'? Known: {', '.join(MODELS)}"),
        (("--fusion", "sum"), f"'sum' is not known. Known: {', '.join(FUSIONS)}"),
        (("--input-px", 250), "multiple of 16"),
        (("--width", 0), "got 0"),
    ],
)
def test_an_unknown_choice_is_an_error_with_the_way_out(option: tuple[str, object], message: str) -> None:
    result = nucseg("models", *option)

    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")
    assert message in result.stderr


@pytest.mark.parametrize(
    ("option", "names"),
    [("--model", MODELS), ("--fusion", FUSIONS), ("--activation", ACTIVATIONS), ("--instance-head", INSTANCE_HEADS)],
)
def test_the_help_of_train_lists_every_choice(option: str, names: list[str]) -> None:
    text = nucseg("train", "--help").stdout
    about = text.split(f"│ {option} ")[1].split("│ --")[0]

    assert set(names) <= set(re.findall(r"\w+", about))


def test_train_passes_the_options_of_the_network_on(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(sys.modules["nucseg_pipeline.cli.train"], "run_train", seen.append)
    asked = ("--activation", "swish", "--classification-guided", "--instance-head", "distance", "--model", "ddunet")

    assert nucseg("train", "--dataset", "mine", *asked).exit_code == 0
    assert nucseg("train", "--dataset", "mine", "--no-classification-guided").exit_code == 0

    given = [(run.model, run.activation, run.classification_guided, run.instance_head) for run in seen]
    assert given == [("ddunet", "swish", True, "distance"), ("eunet3plus", None, False, "none")]


def test_a_fusion_that_was_counted_once_is_right_for_every_network() -> None:
    result = {tuple(row[:2]): row[2:] for row in rows(nucseg("models", "--width", 4).stdout)}

    for model in MODELS:
        with torch.device("meta"):
            costs = count_costs(build_model(model, ModelConfig(width=4, fusion="multiscale")))
        assert result[model, "multiscale"] == [f"{costs.parameters:,}", f"{costs.flops / 1e9:.2f}"]
