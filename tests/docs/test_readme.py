"""The commands of the README run on real images, with a fast encoder and small settings."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from nucseg_pipeline.cli import app
from tests.docs.pages import REPOSITORY, commands

SETTINGS = {
    "embed": ("--limit", "8", "--threads", "1"),
    "train": ("--threads", "1", "--width", "2", "--epochs", "1", "--batch-size", "4"),
    "report": (),
}


@pytest.mark.docs_run
@pytest.mark.shared
def test_the_three_stages(shared: Path, instant_encoder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NUCSEG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NUCSEG_DATA", str(shared / "data"))
    documented = [command.words[1:] for command in commands(REPOSITORY / "README.md")]
    run = [words for words in documented if words[0] in SETTINGS and {"nuinsseg", "runs/published"} & set(words)]
    assert [name for name, *_ in run] == ["embed", "train", "report"]

    for name, *arguments in run:
        encoder = ("--encoder", instant_encoder) if name in ("embed", "train") else ()
        done = CliRunner().invoke(app, [name, *arguments, *encoder, *SETTINGS[name]])
        assert done.exit_code == 0, f"nucseg {name}: {done.output}"

    (summary,) = tmp_path.glob("reports/*/summary.json")
    assert set(json.loads(summary.read_text())["runs"]) == {"published"}
