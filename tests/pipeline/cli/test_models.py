"""`nucseg models` as a person meets it, and the names that the help of `nucseg train` tells."""

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

    shown = nucseg("models")

    assert shown.exit_code == 0, shown.output
    assert [row[:2] for row in rows(shown.stdout)] == [[model, fusion] for model in MODELS for fusion in FUSIONS]
    for name, model in MODELS.items():
        assert f"{name}: {model.source}; activation {model.own_activation}" in shown.stdout
    assert ", ".join(ACTIVATIONS) in shown.stdout
    assert max(map(len, shown.stdout.split("unet: ")[0].splitlines())) <= 80


def test_the_numbers_are_the_costs_of_the_network_asked_for() -> None:
    shown = nucseg("models", "--model", "unet3plus", "--fusion", "concat", "--width", 64, "--input-px", 512)

    with torch.device("meta"):
        costs = count_costs(build_model("unet3plus", ModelConfig(width=64, fusion="concat")), 512)
    assert rows(shown.stdout) == [["unet3plus", "concat", f"{costs.parameters:,}", f"{costs.flops / 1e9:.2f}"]]
    assert shown.stdout.startswith("width 64, one image of 512 px:\n")
    assert "eunet3plus" not in shown.stdout


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (("--model", "unet9"), f"'unet9'. Known: {', '.join(MODELS)}"),
        (("--fusion", "sum"), f"'sum'. Known: {', '.join(FUSIONS)}"),
        (("--input-px", 250), "multiple of 16"),
        (("--width", 0), "got 0"),
    ],
)
def test_what_there_is_not_is_an_error_with_the_way_out(option: tuple[str, object], message: str) -> None:
    shown = nucseg("models", *option)

    assert shown.exit_code == 1
    assert shown.stderr.startswith("error: ")
    assert message in shown.stderr


@pytest.mark.parametrize(
    ("option", "names"),
    [
        ("--model", MODELS),
        ("--fusion", FUSIONS),
        ("--activation", ACTIVATIONS),
        ("--instance-head", INSTANCE_HEADS),
    ],
)
def test_the_help_of_train_lists_every_choice(option: str, names: list[str]) -> None:
    text = nucseg("train", "--help").stdout
    about = text.split(f"│ {option} ")[1].split("│ --")[0]

    assert set(names) <= set(re.findall(r"\w+", about))


def test_train_hands_the_networks_options_on(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(sys.modules["nucseg_pipeline.cli.train"], "run_train", seen.append)
    asked = ("--activation", "swish", "--classification-guided", "--instance-head", "distance", "--model", "ddunet")

    assert nucseg("train", "--dataset", "mine", *asked).exit_code == 0
    assert nucseg("train", "--dataset", "mine", "--no-classification-guided").exit_code == 0

    told = [(one.model, one.activation, one.classification_guided, one.instance_head) for one in seen]
    assert told == [("ddunet", "swish", True, "distance"), ("eunet3plus", None, False, "none")]


def test_a_fusion_that_was_counted_once_is_right_for_every_network() -> None:
    shown = {tuple(row[:2]): row[2:] for row in rows(nucseg("models", "--width", 4).stdout)}

    for model in MODELS:
        with torch.device("meta"):
            costs = count_costs(build_model(model, ModelConfig(width=4, fusion="multiscale")))
        assert shown[model, "multiscale"] == [f"{costs.parameters:,}", f"{costs.flops / 1e9:.2f}"]
