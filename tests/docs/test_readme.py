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
    "figures": (),
}


@pytest.mark.docs_run
@pytest.mark.shared
def test_the_three_stages_and_their_figures(
    shared: Path, instant_encoder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NUCSEG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NUCSEG_DATA", str(shared / "data"))
    documented = [command.words[1:] for command in commands(REPOSITORY / "README.md")]
    expected = [
        ("embed", "--dataset", "nuinsseg"),
        ("train", "--dataset", "nuinsseg", "--run", "runs/guided"),
        ("train", "--dataset", "nuinsseg", "--fusion", "none", "--run", "runs/unguided"),
        ("report", "runs/guided", "runs/unguided", "--baseline", "unguided"),
        ("figures", "runs/guided", "runs/unguided"),
    ]
    assert [words for words in documented if words in expected] == expected, "the README has them in this order"

    for name, *arguments in expected:
        encoder = ("--encoder", instant_encoder) if name in ("embed", "train") else ()
        done = CliRunner().invoke(app, [name, *arguments, *encoder, *SETTINGS[name]])
        assert done.exit_code == 0, f"nucseg {name}: {done.output}"

    summary = json.loads((tmp_path / "reports" / "guided-vs-unguided" / "summary.json").read_text())
    assert set(summary["runs"]) == {"guided", "unguided"}
    assert list((tmp_path / "figures").rglob("*.png"))
