"""The site is built without warnings, and the notebook runs."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import REPOSITORY

DOCS = REPOSITORY / "docs"

pytestmark = pytest.mark.docs_run


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All pages as HTML; the notebook is not executed, which another test does."""
    pytest.importorskip("mkdocs")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--config-file", DOCS / "mkdocs.yml"]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "NUCSEG_DOCS_EXECUTE": "false"}
    built = subprocess.run([*command, "--site-dir", folder], capture_output=True, text=True, env=environment)
    assert built.returncode == 0, built.stderr
    return folder


def test_every_page_is_on_the_site(site: Path) -> None:
    pages = {page.stem for page in (DOCS / "pages").iterdir() if page.suffix in (".md", ".ipynb")}

    assert {page.stem for page in site.glob("*.html")} == pages | {"404"}


def test_links_between_pages_have_targets(site: Path) -> None:
    """Also on pages from other folders of the repository, whose links are rewritten."""
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


def test_the_api_page_documents_what_it_names(site: Path) -> None:
    text = (site / "api.html").read_text("utf-8")
    named = re.findall(r"^::: (\S+)", (DOCS / "pages" / "api.md").read_text("utf-8"), re.MULTILINE)

    assert len(named) > 15
    assert [name for name in named if f'id="{name}"' not in text] == []


def test_fonts_and_scripts_are_local(site: Path) -> None:
    for page in site.glob("*.html"):
        assert re.findall(r'<(?:link|script)[^>]* (?:href|src)="https?:[^"]*"', page.read_text("utf-8")) == []


def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    book = nbformat.read(DOCS / "pages" / "notebook.ipynb", as_version=4)

    nbclient.NotebookClient(book, timeout=500, kernel_name="python3").execute(cwd=str(tmp_path))

    output = "".join(str(dict(output)) for cell in book.cells for output in cell.get("outputs", ()))
    assert "6 images encoded" in output
    assert re.search(r"best validation Dice 0\.\d{3}", output)
    assert output.count("image/png") == 2
    assert list(tmp_path.glob("tmp*")) == [], "it deletes its files"


def test_the_notebook_is_stored_without_outputs() -> None:
    cells = json.loads((DOCS / "pages" / "notebook.ipynb").read_text("utf-8"))["cells"]

    assert all(not cell.get("outputs") and cell.get("execution_count") is None for cell in cells)
