"""The examples of the Python page run one after the other, as a reader would paste them into a notebook."""

import re
from pathlib import Path
from typing import Any

import pytest

from tests.docs.pages import REPOSITORY

EXAMPLES = re.findall(
    r"^```python\n(.*?)^```", (REPOSITORY / "docs/pages/api.md").read_text("utf-8"), re.MULTILINE | re.DOTALL
)


def test_the_examples_of_the_python_page_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}

    for example in EXAMPLES:
        exec(example, names)

    printed = capsys.readouterr().out
    assert "10 images encoded into cache/synthetic.zarr" in printed
    assert "(256, 256, 3)" in printed
    assert "(1, 256, 64, 64)" in printed
    assert re.search(r"runs/guided validation Dice 0\.\d+", printed)
    assert re.search(r"reports/guided/report.html Dice 0\.\d+", printed)
    assert re.search(r"^\(256, 256\) \d+ nuclei$", printed, re.MULTILINE)
    assert "epochs must be at least 1" in printed
    assert (tmp_path / "reports/guided/report.html").is_file()
