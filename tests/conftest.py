"""What several test modules need, and the options of the runs that torture the product."""

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("torture", "how hard tests/torture tries")
    group.addoption("--torture", choices=("short", "long"), default="short", help="how many faults are tried")
    group.addoption("--torture-seed", type=int, default=1, metavar="N", help="what the random faults are drawn from")
    group.addoption(
        "--torture-table", type=Path, metavar="FILE", help="a Markdown file whose table of faults is renewed"
    )


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with real images and a real encoder; tests that need it are skipped without it."""
    folder = Path(os.environ.get("NUCSEG_SHARED", REPOSITORY.parent / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip(f"no real data: {folder} has no data folder; set NUCSEG_SHARED to the folder that has")
    return folder


def message(*fields: tuple[int, int | str | bytes]) -> bytes:
    """A protocol buffer of these fields: number, and what is in it."""

    def varint(value: int) -> bytes:
        return bytes([value & 127 | 128]) + varint(value >> 7) if value > 127 else bytes([value])

    def content(number: int, value: int | str | bytes) -> bytes:
        if isinstance(value, int):
            return varint(number << 3) + varint(value)
        data = value.encode() if isinstance(value, str) else value
        return varint(number << 3 | 2) + varint(len(data)) + data

    return b"".join(content(*field) for field in fields)


def node(operator: str, attribute: str, value: int, source: str, *targets: str) -> bytes:
    """A node of an ONNX graph (onnx.proto3) with one whole number as its attribute."""
    setting = message((1, attribute), (3, value), (20, 2))
    return message((1, source), *((2, target) for target in targets), (4, operator), (5, setting))


@pytest.fixture(scope="session")
def instant_encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An encoder in ONNX whose 256 channels are pixels of the image, for processes that nothing can be patched in."""
    pytest.importorskip("onnxruntime")
    axes = {name: [(1, message((1, n))) for n in shape] for name, shape in SHAPES.items()}
    ends = {name: message((1, name), (2, message((1, message((1, 1), (2, message(*axes[name]))))))) for name in SHAPES}
    nodes = (node("SpaceToDepth", "blocksize", 16, "x", "cells"), node("Split", "axis", 1, "cells", "y", "y2", "y3"))
    graph = message(*((1, one) for one in nodes), (2, "instant"), (11, ends["x"]), (12, ends["y"]))
    file = tmp_path_factory.mktemp("encoder") / "instant.onnx"
    file.write_bytes(message((1, 8), (7, graph), (8, message((1, ""), (2, 13)))))
    return f"onnx:{file}"


SHAPES = {"x": (1, 3, 1024, 1024), "y": (1, 256, 64, 64)}
