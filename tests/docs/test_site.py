"""The pages become a site without a warning, and the notebook runs from its first cell to its last."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.docs.pages import REPOSITORY

DOCS = REPOSITORY / "docs"

pytestmark = pytest.mark.docs_run


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "NO_MKDOCS_2_WARNING": "1", **more}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All pages as HTML; the notebook is shown and not run, which another test does."""
    pytest.importorskip("mkdocs")
    folder = tmp_path_factory.mktemp("site")
    command = [
        sys.executable,
        "-m",
        "mkdocs",
        "build",
        "--strict",
        "--config-file",
        DOCS / "mkdocs.yml",
        "--site-dir",
        folder,
    ]
    built = subprocess.run(command, capture_output=True, text=True, env=environment(NUCSEG_DOCS_EXECUTE="false"))
    assert built.returncode == 0, built.stderr
    return folder


def test_every_page_is_on_the_site(site: Path) -> None:
    pages = {page.stem for page in (DOCS / "pages").iterdir() if page.suffix in (".md", ".ipynb")}

    assert {page.stem for page in site.glob("*.html")} == pages | {"404"}


def test_links_between_pages_lead_somewhere(site: Path) -> None:
    """Those of pages that lie elsewhere in the repository too, whose links are turned."""
    broken = []
    for page in site.glob("*.html"):
        for link in re.findall(r'<(?:a|img)[^>]* (?:href|src)="([^"]+)"', page.read_text("utf-8")):
            place, _, anchor = link.partition("#")
            target = site / place if place else page
            if re.match(r"[a-z]+:", link) or page.stem == "404":
                continue
            if not target.exists() or (anchor and f'id="{anchor}"' not in target.read_text("utf-8")):
                broken.append(f"{page.name}: {link}")

    assert broken == []


def test_the_python_page_documents_what_it_names(site: Path) -> None:
    text = (site / "api.html").read_text("utf-8")
    named = re.findall(r"^::: (\S+)", (DOCS / "pages" / "api.md").read_text("utf-8"), re.MULTILINE)

    assert len(named) > 15
    assert [name for name in named if f'id="{name}"' not in text] == []


def test_no_font_and_no_script_comes_from_elsewhere(site: Path) -> None:
    for page in site.glob("*.html"):
        assert re.findall(r'<(?:link|script)[^>]* (?:href|src)="https?:[^"]*"', page.read_text("utf-8")) == []


def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    book = nbformat.read(DOCS / "pages" / "notebook.ipynb", as_version=4)

    nbclient.NotebookClient(book, timeout=500, kernel_name="python3").execute(cwd=str(tmp_path))

    said = "".join(map(text, book.cells))
    assert "10 images encoded" in said
    assert re.search(r"best validation Dice 0\.\d{3}", said)
    assert said.count("image/png") == 2
    assert list(tmp_path.glob("tmp*")) == [], "it tidies up"


def test_the_notebook_is_kept_without_what_a_run_of_it_showed() -> None:
    cells = json.loads((DOCS / "pages" / "notebook.ipynb").read_text("utf-8"))["cells"]

    assert all(not cell.get("outputs") and cell.get("execution_count") is None for cell in cells)


def text(cell: Any) -> str:
    return "".join(str(dict(output)) for output in cell.get("outputs", ()))
