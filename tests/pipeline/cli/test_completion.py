"""Shell completion, requested as a shell does it."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from nucseg_pipeline.cli import app


def offered(typed: str) -> list[str]:
    words = typed.split(" ")
    asked = {"_NUCSEG_COMPLETE": "complete_bash", "COMP_WORDS": typed, "COMP_CWORD": str(len(words) - 1)}
    return CliRunner().invoke(app, [], env=asked, prog_name="nucseg").output.split()


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("nucseg em", ["embed"]),
        ("nucseg embed --dataset nu", ["nuinsseg"]),
        ("nucseg train --encoder vit", ["vit_b", "vit_h", "vit_l"]),
        ("nucseg distill --teacher stu", ["student", "student:"]),
        ("nucseg distill --recipe student", ["student"]),
        ("nucseg ablate student", ["student-guidance"]),
        ("nucseg train --recipe nuinsseg", ["nuinsseg", "nuinsseg-cpu"]),
        ("nucseg ablate f", ["formats", "fusion"]),
        ("nucseg fetch vit_", ["vit_b", "vit_h", "vit_l"]),
        ("nucseg report --dataset cryo", ["cryonuseg"]),
        ("nucseg fidelity --dataset con", ["conic"]),
    ],
)
def test_names_that_begin_so_are_offered(typed: str, expected: list[str]) -> None:
    assert offered(typed) == expected


def test_stores_in_the_cache_are_offered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my-slides.zarr").mkdir()
    (tmp_path / "my notes").mkdir()
    monkeypatch.setenv("NUCSEG_CACHE", str(tmp_path))

    assert offered("nucseg train --dataset my") == ["my-slides"]
