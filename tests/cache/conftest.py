"""A store of three tiny samples, faults injected at a chosen write, and programs run in other processes."""

import errno
import inspect
import os
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem
from zarr.storage import LocalStore

from nucseg_cache import Key, Store
from tests.cache.drawn_store import SIDE_PX, Files, make_embedding, make_embeddings, make_key, make_sample, make_store

PREAMBLE = "\n".join(
    [
        "import os, signal, sys, time",
        "from pathlib import Path",
        "from typing import Any",
        "import numpy as np",
        "from nucseg_cache import *",
        f"SIDE_PX = {SIDE_PX}",
        *map(inspect.getsource, (make_sample, make_embedding, make_store, make_key)),
    ]
)


@pytest.fixture
def key() -> Key:
    return make_key()


@pytest.fixture
def store_path(tmp_path: Path) -> Path:
    return tmp_path / "drawn.zarr"


@pytest.fixture(scope="session")
def _prepared_stores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stores that tests copy instead of creating their own."""
    folder = tmp_path_factory.mktemp("prepared")
    make_store(folder / "samples.zarr")
    embedded = make_store(folder / "embedded.zarr")
    embedded.embeddings(make_key()).write([0, 1, 2], make_embeddings(0, 1, 2))
    make_store(folder / "two blocks.zarr", 67)
    return folder


@pytest.fixture
def store(_prepared_stores: Path, store_path: Path) -> Store:
    """Three samples without embeddings, open for writing."""
    shutil.copytree(_prepared_stores / "samples.zarr", store_path)
    return Store.open(store_path, mode="r+")


@pytest.fixture
def embedded(_prepared_stores: Path, store_path: Path) -> Store:
    """Three samples with embeddings of `key`."""
    shutil.copytree(_prepared_stores / "embedded.zarr", store_path)
    return Store.open(store_path, mode="r+")


@pytest.fixture
def two_blocks(_prepared_stores: Path, store_path: Path) -> Store:
    """67 samples, three more than a block holds, without embeddings."""
    shutil.copytree(_prepared_stores / "two blocks.zarr", store_path)
    return Store.open(store_path, mode="r+")


def read_through_zarr(patch: pytest.MonkeyPatch) -> None:
    """Read stores in a folder through zarr, as on an object store."""
    patch.setattr("nucseg_cache.reading.ChunkFiles.of", lambda array: None)


@pytest.fixture(params=["chunk files", "zarr"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How a store in a folder is read: a test with this fixture runs both ways."""
    if request.param == "zarr":
        read_through_zarr(monkeypatch)
    return str(request.param)


@pytest.fixture
def each_way(monkeypatch: pytest.MonkeyPatch) -> Callable[[], Iterator[str]]:
    """Iterate over both ways of reading, for stores that are opened inside the loop."""

    def ways() -> Iterator[str]:
        yield "chunk files"
        with monkeypatch.context() as patch:
            read_through_zarr(patch)
            yield "zarr"

    return ways


@pytest.fixture(params=["folder", "folder through zarr", "memory"])
def location(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An empty place for a store: a folder, read in either way, or an object store."""
    if request.param != "memory":
        if request.param != "folder":
            read_through_zarr(monkeypatch)
        yield str(tmp_path / "drawn.zarr")
        return
    name = uuid.uuid4().hex
    yield f"memory://{name}/drawn.zarr"
    if MemoryFileSystem().exists(name):
        MemoryFileSystem().rm(name, recursive=True)


@pytest.fixture
def filled(location: str, _prepared_stores: Path) -> str:
    """A location with three samples without embeddings."""
    Files(location).update(Files(_prepared_stores / "samples.zarr"))
    return location


@pytest.fixture
def files(store_path: Path) -> Files:
    """The files of the store in `store_path`."""
    return Files(store_path)


class Stopped(BaseException):
    """Simulates a killed process: no `except Exception` catches it."""


class Fault:
    """Counts the changes that zarr and the cache make on disk, and makes the k-th change fail.

    Kind "full" raises ENOSPC at the k-th change only, like a disk on which space is then freed. Kind "killed" stops at
    the k-th change, half written under a temporary name; nothing reaches the disk afterwards, not even clean-up.
    """

    def __init__(self, at: int, kind: str) -> None:
        self.at, self.kind, self.n_changes, self.n_under_way = at, kind, 0, 0

    @property
    def struck(self) -> bool:
        return self.n_changes >= self.at

    def strike(self, half_written: Callable[[], None] = lambda: None) -> None:
        """Called before each change."""
        self.n_changes += 1
        if self.kind == "full" and self.n_changes == self.at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if self.kind == "killed" and self.struck:
            if self.n_changes == self.at:
                half_written()
            raise Stopped


@pytest.fixture
def strike(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, str, Callable[[], None]], Fault]:
    """Run an operation with a fault at its k-th change on disk; the returned fault tells whether it struck."""

    def run(at: int, kind: str, operation: Callable[[], None]) -> Fault:
        fault = Fault(at, kind)
        with monkeypatch.context() as patch:
            _wire(patch, fault)
            try:
                operation()
            except Stopped:
                pass
            finally:
                while fault.n_under_way:  # zarr writes several files concurrently; a killed process would stop
                    time.sleep(0.001)
        return fault

    return run


def _wire(patch: pytest.MonkeyPatch, fault: Fault) -> None:
    """Route every change that zarr or the cache makes on disk through the fault."""
    rename, rmtree = Path.rename, shutil.rmtree

    def faulty_rename(self: Path, target: Any) -> Path:
        fault.strike()
        return rename(self, target)

    def faulty_rmtree(path: Any, *args: Any, **kwargs: Any) -> None:
        if Path(path).exists():
            fault.strike()
            rmtree(path, *args, **kwargs)

    for name in ("set", "set_if_not_exists"):
        patch.setattr(LocalStore, name, _faulty_write(getattr(LocalStore, name), fault))
    for name in ("delete", "delete_dir"):
        patch.setattr(LocalStore, name, _faulty_delete(getattr(LocalStore, name), fault))
    patch.setattr(Path, "rename", faulty_rename)
    patch.setattr(shutil, "rmtree", faulty_rmtree)


def _faulty_write(write: Callable[..., Awaitable[None]], fault: Fault) -> Callable[..., Awaitable[None]]:
    async def faulty(self: LocalStore, key: str, value: Any) -> None:
        def half_written() -> None:
            file, content = self.root / key, value.to_bytes()
            file.parent.mkdir(parents=True, exist_ok=True)
            file.with_suffix(f".{uuid.uuid4().hex}.partial").write_bytes(content[: len(content) // 2])

        fault.strike(half_written)
        fault.n_under_way += 1
        try:
            await write(self, key, value)
        finally:
            fault.n_under_way -= 1

    return faulty


def _faulty_delete(delete: Callable[..., Awaitable[None]], fault: Fault) -> Callable[..., Awaitable[None]]:
    async def faulty(self: LocalStore, key: str) -> None:
        fault.strike()
        await delete(self, key)

    return faulty


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    """Start a Python program that can use the helpers above; it is killed at the end of the test if still running."""
    started: list[subprocess.Popen[str]] = []

    def start(program: str, *arguments: str | Path) -> "subprocess.Popen[str]":
        file = tmp_path / f"program{len(started)}.py"
        file.write_text(f"{PREAMBLE}\n{inspect.cleandoc(program)}\n")
        command = [sys.executable, "-W", "error", str(file), *map(str, arguments)]
        child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        started.append(child)
        return child

    yield start
    for child in started:
        child.kill()
        child.communicate()
