"""Fixtures that several test modules share, and the options of tests/torture."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.file_server import Answer, FileServer, serving
from tests.instant_encoder import instant_graph

REPOSITORY = Path(__file__).resolve().parents[1]

LONGEST = (
    "tests/torture/",
    "tests/docs/test_site.py",
    "embed/test_dask.py",
    "train/test_processes.py",
    "report/test_browser.py",
    "train/test_stage.py",
    "distill/test_stage.py",
    "report/test_stage.py",
)
"""The test files that take longest."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options that choose the faults and write the table."""
    group = parser.getgroup("nucseg")
    group.addoption("--torture", choices=("short", "long"), default="short", help="number of faults to try")
    group.addoption("--torture-seed", type=int, default=1, metavar="N", help="seed of the random faults")
    group.addoption("--torture-table", type=Path, metavar="FILE", help="Markdown file whose table to update")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start with the files that take longest, so that no process is idle at the end."""
    items.sort(key=lambda item: not any(name in item.nodeid for name in LONGEST))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with real images and a real encoder; without it, tests that need it are skipped."""
    folder = Path(os.environ.get("NUCSEG_SHARED", REPOSITORY.parent / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip(f"no real data: {folder} has no folder `data`; set NUCSEG_SHARED to a folder that has one")
    return folder


@pytest.fixture(scope="session")
def instant_encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The name of an encoder that takes no time; it also works in child processes."""
    pytest.importorskip("onnxruntime")
    file = tmp_path_factory.mktemp("encoder") / "instant.onnx"
    file.write_bytes(instant_graph())
    return f"onnx:{file}"


@pytest.fixture
def file_server() -> Iterator[FileServer]:
    """A server in this process that gives the answers set for each path."""
    with serving() as served:
        yield served


@pytest.fixture(scope="session")
def answer() -> type[Answer]:
    """The class of the file server's answers."""
    return Answer
