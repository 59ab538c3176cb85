"""The commands of the page "Start" lead from a folder of images to a report."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from nucseg.data import synthetic_dataset
from nucseg_pipeline.cli import app
from tests.docs.pages import REPOSITORY, commands

START = REPOSITORY / "docs" / "pages" / "start.md"

pytestmark = pytest.mark.docs_run

ELSEWHERE = {
    "--help": "tests/pipeline/cli",
    "demo": "tests/pipeline/cli/test_commands.py",
    "fetch": "tests/pipeline/fetch",
}
"""Commands of the page that other tests cover."""

SETTINGS = {
    "embed": ("--encoder", "student", "--threads", "1"),
    "train": ("--encoder", "student", "--threads", "1", "--width", "2", "--epochs", "1"),
    "report": (),
    "datasets": (),
    "predict": ("--threads", "1"),
}
"""Options that make a command run in seconds and without a download."""


@pytest.fixture
def my_slides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a data set as the page describes it and a new image."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NUCSEG_CACHE", str(tmp_path / "cache"))
    for number, entry in enumerate(synthetic_dataset(7, side_px=96).entries):
        sample, *_ = entry.read()
        for kind, pixels in (("images", sample.image), ("masks", sample.instances.astype(np.uint16))):
            folder = tmp_path / "my-slides" / kind / f"patient-{number % 6}"
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / f"{number}.png")
    (tmp_path / "new-slides").mkdir()
    Image.fromarray(sample.image).save(tmp_path / "new-slides" / "new.png")
    return tmp_path


def test_from_images_to_a_report(my_slides: Path) -> None:
    documented = [command.words for command in commands(START)]
    run = [words for words in documented if words[1] not in ELSEWHERE]

    for _, name, *arguments in run:
        done = CliRunner().invoke(app, [name, *arguments, *SETTINGS[name]])
        assert done.exit_code == 0, f"nucseg {name}: {done.output}"

    assert [words[1] for words in run] == ["datasets", "embed", "train", "train", "report", "predict"]
    summary = json.loads((my_slides / "reports" / "first" / "summary.json").read_text())
    assert set(summary["runs"]) == {"guided", "unguided"}
    assert (my_slides / "reports" / "first" / "report.html").is_file()
    assert (my_slides / "predictions" / "new" / "nuclei.geojson").is_file()
