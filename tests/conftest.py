"""What several test modules need, and the options of the runs that torture the product."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.file_server import Answer, FileServer, serving
from tests.instant_encoder import instant_graph

REPOSITORY = Path(__file__).resolve().parents[1]

LONGEST = ("tests/torture/", "test_workers.py", "test_report.py", "test_processes.py")


def pytest_addoption(parser: pytest.Parser) -> None:
    """How hard to try, and what to write."""
    group = parser.getgroup("nucseg")
    group.addoption("--torture", choices=("short", "long"), default="short", help="how many faults are tried")
    group.addoption("--torture-seed", type=int, default=1, metavar="N", help="what the random faults are drawn from")
    group.addoption("--torture-table", type=Path, metavar="FILE", help="Markdown whose table of faults is renewed")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start with the files that take longest, so that no process waits for another at the end."""
    items.sort(key=lambda item: not any(name in item.nodeid for name in LONGEST))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with real images and a real encoder; tests that need it are skipped without it."""
    folder = Path(os.environ.get("NUCSEG_SHARED", REPOSITORY.parent / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip(f"no real data: {folder} has no data folder; set NUCSEG_SHARED to the folder that has")
    return folder


@pytest.fixture(scope="session")
def instant_encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The name of an encoder that takes no time, for processes in which nothing can be patched."""
    pytest.importorskip("onnxruntime")
    file = tmp_path_factory.mktemp("encoder") / "instant.onnx"
    file.write_bytes(instant_graph())
    return f"onnx:{file}"


@pytest.fixture
def file_server() -> Iterator[FileServer]:
    """A server that answers as it is told, in this process."""
    with serving() as served:
        yield served


@pytest.fixture(scope="session")
def answer() -> type[Answer]:
    """What the file server answers."""
    return Answer
