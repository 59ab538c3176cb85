"""`nucseg ablate` on the command line."""

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from nucseg_pipeline.cli import app

RECIPE = """
[ablation]
title = "Guidance"
datasets = ["synthetic"]
folds = { synthetic = 1 }

[train]
width = 2
epochs = 1
batch_size = 4

[[row]]
name = "alone"
fusion = "none"
published.synthetic = { dice = 0.8 }

[[row]]
name = "guided [concat]"
fusion = "concat"

[[row]]
name = "large"
encoder = "vit_h"
"""


@pytest.fixture
def ablate(real_cache: Path, exported_encoder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "guidance.toml").write_text(RECIPE)

    def run(*more: object, recipe: str = "guidance.toml") -> Result:
        given = ("ablate", recipe, "--cache", real_cache, "--encoder", exported_encoder, "--device", "cpu", *more)
        return CliRunner().invoke(app, [str(word) for word in given])

    return run


def test_a_table_is_printed_with_what_each_row_cost_and_what_was_not_run(
    ablate: Any, in_this_process: type[Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("nucseg_pipeline.ablate.jobs.SubprocessRunner", in_this_process)

    result = ablate()
    again = ablate()

    text = " ".join(result.output.split())
    assert result.exit_code == 0, result.output
    assert "synthetic, guided [concat]: 1 run, 0 encoded" in text
    assert "synthetic, large: not run." in text
    assert "run 1 of 2: synthetic-eunet3plus-none-" in text
    assert "guided [concat] minus alone, dice: " in text
    assert "2 trained, 0 finished before, 0 failed" in text
    assert "0 trained, 2 finished before, 0 failed" in again.output
    assert (tmp_path / "reports/guidance/ablation.html").exists()
    assert {folder.name[-6:] for folder in (tmp_path / "runs").iterdir()} == {"-f0-s0"}


def test_a_training_that_fails_makes_the_exit_status_1_and_the_table_all_the_same(
    ablate: Any, in_this_process: type[Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    crashing = in_this_process(crash=lambda run: run.fusion == "concat")
    monkeypatch.setattr("nucseg_pipeline.ablate.jobs.SubprocessRunner", lambda: crashing)

    result = ablate()

    assert result.exit_code == 1
    assert "failed: it was killed by SIGKILL" in result.output
    assert "1 trained, 0 finished before, 1 failed" in result.output
    assert (tmp_path / "reports/guidance/ablation.md").exists()


@pytest.mark.parametrize(
    ("arguments", "message"), [({"recipe": "fusoin"}, "No recipe 'fusoin'"), ({"recipe": "nuinsseg"}, "no [ablation]")]
)
def test_a_wrong_recipe_is_one_message(ablate: Any, arguments: dict[str, str], message: str) -> None:
    result = ablate(**arguments)

    assert result.exit_code == 1
    assert message in " ".join(result.stderr.split())
    assert "Traceback" not in result.output


def test_the_recipe_of_a_table_is_no_recipe_for_train() -> None:
    result = CliRunner().invoke(app, ["train", "--recipe", "fusion"])

    assert result.exit_code == 1
    assert "nucseg ablate fusion" in result.stderr
