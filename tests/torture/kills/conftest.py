"""Commands in child processes that can be killed at any moment, and the caches that they leave."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nucseg_cache import Store, StoreNotFound, prune, verify

FORK_SERVER = Path(__file__).with_name("fork_server.py")

TORCH = ("nucseg_pipeline.train.stage", "pydantic", "torch._dynamo")

MODULES = {
    "embed": ("nucseg_pipeline.embed.stage", "onnxruntime", "pydantic"),
    "train": TORCH,
    "report": ("nucseg_pipeline.report.stage", *TORCH),
    "ablate": ("nucseg_pipeline.ablate.stage", *TORCH),
    "cache": ("nucseg_cache",),
}
"""The modules of each command, which the fork server imports once."""

N_IMAGES = 5
"""Enough for a split: three training images, one validation image, one test image."""

TIMEOUT_S = 120.0
"""The longest that a command may take on a busy machine."""


@dataclass
class Command:
    """A running command."""

    process: int
    output: Path
    poll: Callable[[], int | None]
    """Its exit status, or the negative number of the signal that killed it; None while it runs."""

    @property
    def text(self) -> str:
        """Its output so far."""
        return self.output.read_text()

    def wait(self, seconds: float = TIMEOUT_S) -> int:
        """Wait for its end; returns the exit status."""
        end = time.monotonic() + seconds
        while (status := self.poll()) is None:
            assert time.monotonic() < end, f"it did not end in {seconds} s:\n{self.text}"
            time.sleep(0.02)
        return status

    def seconds(self) -> float:
        """Wait for its end; returns the seconds that took. Fails if the command fails."""
        start = time.monotonic()
        assert self.wait() == 0, self.text
        return time.monotonic() - start

    def killed_after(self, seconds: float) -> bool:
        """Kill it after some seconds; False if it ended earlier."""
        time.sleep(seconds)
        return self.send().wait() == -signal.SIGKILL

    def send(self, how: signal.Signals = signal.SIGKILL) -> "Command":
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.process, how)
        return self

    def until(self, condition: Callable[[], object]) -> "Command":
        """Wait until a condition holds, or the command has ended."""
        while not condition() and self.poll() is None:
            time.sleep(0.005)
        return self

    def failure(self) -> str:
        """Wait for its end; returns its output if it failed."""
        return self.text or "no output" if self.wait() else ""

    def number(self, pattern: str) -> int:
        """A number in its output."""
        found = re.search(pattern, self.text)
        assert found, f"{pattern} is not in:\n{self.text}"
        return int(found[1])


@dataclass
class ForkServer:
    """Starts commands as forks of a process that has imported their modules; see fork_server.py."""

    outputs: Path
    """The folder of the commands' outputs, one file each."""
    _server: "subprocess.Popen[str] | None" = None
    _running: set[int] = field(default_factory=set)
    _n_started: int = 0

    def __call__(self, *arguments: object, begun: Path | None = None) -> Command:
        """Start `nucseg ARGUMENTS`; `begun` gets one byte for each image whose encoding begins."""
        self._n_started += 1
        output = self.outputs / f"{self._n_started}.txt"
        output.touch()
        words = [*map(str, arguments)]
        modules = MODULES[words[0]]
        process = self._ask({"start": words, "modules": modules, "output": str(output), "begun": begun and str(begun)})
        assert process
        self._running.add(process)
        ended: list[int] = []

        def poll() -> int | None:
            status = ended[0] if ended else self._ask({"poll": process})
            if status is not None and not ended:
                ended.append(status)
                self._running.discard(process)
            return status

        return Command(process, output, poll)

    def _ask(self, request: dict[str, object]) -> int | None:
        if self._server is None:
            command = [sys.executable, str(FORK_SERVER)]
            self._server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._server.stdin
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        assert self._server.stdout
        answer: int | None = json.loads(self._server.stdout.readline())
        return answer

    def close(self) -> None:
        """End the server and all commands that still run."""
        for process in self._running:
            os.kill(process, signal.SIGKILL)
        if self._server is not None:
            self._server.communicate()


@pytest.fixture(scope="session")
def nucseg(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkServer]:
    """Starts `nucseg` commands."""
    server = ForkServer(tmp_path_factory.mktemp("output"))
    yield server
    server.close()


@dataclass(frozen=True)
class Dataset:
    """A folder data set of small images."""

    folder: Path

    def repaint(self, number: int, version: int) -> None:
        """Replace one image atomically by another."""
        file = self.folder / "images" / f"{number:02}.png"
        draw_image(number, version).save(file.with_suffix(".new"), "png")
        file.with_suffix(".new").replace(file)


def draw_image(number: int, version: int = 0) -> Image.Image:
    """Noise, other for each number and version."""
    return Image.fromarray(np.random.default_rng((number, version)).integers(0, 256, (40, 32, 3), dtype=np.uint8))


def draw_dataset(folder: Path) -> Dataset:
    """Write images, each with the same two nuclei."""
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    mask = np.zeros((40, 32), np.uint8)
    mask[5:12, 3:9], mask[20:30, 20:28] = 1, 2
    for number in range(N_IMAGES):
        draw_image(number).save(folder / "images" / f"{number:02}.png")
        Image.fromarray(mask).save(folder / "masks" / f"{number:02}.png")
    return Dataset(folder)


@dataclass
class Workspace:
    """A data set and a cache that commands fill."""

    nucseg: ForkServer
    dataset: Dataset
    encoder: str
    cache: Path

    @property
    def store(self) -> Path:
        """The path of the store."""
        return self.cache / "mine.zarr"

    @property
    def begun(self) -> Path:
        """A file with one byte for each image whose encoding has begun."""
        return self.cache.with_name(f"{self.cache.name}.begun")

    def embed_arguments(self, *options: object) -> list[object]:
        """Arguments of the `embed` that fills the cache."""
        named = ["--dataset", "mine", "--source", self.dataset.folder, "--cache", self.cache]
        return ["embed", *named, "--encoder", self.encoder, "--threads", 1, "--device", "cpu", *options]

    def embed(self, *options: object) -> Command:
        """Start to fill the cache."""
        return self.nucseg(*self.embed_arguments(*options), begun=self.begun)

    def train_arguments(self, run: Path, *options: object) -> list[object]:
        """Arguments of the `train` of a small network."""
        named = ["--dataset", "mine", "--cache", self.cache, "--encoder", self.encoder, "--run", run]
        network = ["--model", "unet", "--fusion", "concat", "--width", 2, "--epochs", 3, "--batch-size", 2]
        return ["train", *named, *network, "--threads", 1, "--device", "cpu", *options]

    def train(self, run: Path, *options: object) -> Command:
        """Start a training."""
        return self.nucseg(*self.train_arguments(run, *options))

    def n_begun(self) -> int:
        """The number of images whose encoding has begun, in all commands."""
        return self.begun.stat().st_size if self.begun.exists() else 0

    def n_embedded(self) -> int:
        """The number of embeddings in all views; -1 if there is no store."""
        try:
            store = Store.open(self.store)
        except StoreNotFound:
            return -1
        groups = [store.embeddings(key, view) for key in store.keys() for view in store.views(key)]  # noqa: SIM118
        return sum(len(group.embedded_rows()) for group in groups)

    def damage(self) -> str:
        """The findings of `cache verify`; empty if there is no store yet."""
        try:
            result = verify(self.store, clear=False)
        except StoreNotFound:
            return f"{self.store} exists, but is not a store" if self.store.exists() else ""
        return "; ".join(map(str, result.findings))

    def differences(self, undisturbed: "Workspace") -> str:
        """How the pruned store differs from another one, and which files are left next to it."""
        prune(self.store)
        left = {path.name for path in self.cache.iterdir()} - {self.store.name, f".{self.store.name}.lock"}
        difference = compare_folders(self.store, undisturbed.store)
        return "; ".join([*(f"left next to the store: {name}" for name in sorted(left)), *filter(None, [difference])])

    def damage_value(self, row: int, values: str = "embeddings/*/identity/values/c") -> None:
        """Change the last byte of an embedding in every key."""
        for folder in self.store.glob(values):
            file = folder / str(row) / "0/0/0"
            file.write_bytes(file.read_bytes()[:-1] + b"!")

    def copy_store(self, source: "Workspace") -> "Workspace":
        """Fill the empty cache with the store of another workspace."""
        shutil.copytree(source.store, self.store)
        return self


NewWorkspace = Callable[..., Workspace]


@pytest.fixture(scope="session")
def new_workspace(
    nucseg: ForkServer, instant_encoder: str, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Workspace]:
    """Creates empty caches, for the data set of another workspace or for a new one."""
    folder = tmp_path_factory.mktemp("workspaces")

    def create(dataset: Dataset | None = None) -> Workspace:
        number = len(list(folder.iterdir()))
        dataset = dataset or draw_dataset(folder / f"dataset {number}")
        cache = folder / f"cache {number}"
        cache.mkdir()
        return Workspace(nucseg, dataset, instant_encoder, cache)

    return create


@pytest.fixture(scope="session")
def embedded(new_workspace: NewWorkspace) -> tuple[Workspace, float]:
    """A workspace that an undisturbed `embed` has filled, and the seconds that took."""
    workspace = new_workspace()
    return workspace, workspace.embed().seconds()


def compare_folders(found: Path, expected: Path) -> str:
    """How the files of two folders differ."""
    ours, theirs = files_of(found), files_of(expected)
    names = [name for name in sorted({*ours, *theirs}) if ours.get(name) != theirs.get(name)]
    return f"{len(names)} files differ, the first is {names[0]}" if names else ""


def files_of(folder: Path) -> dict[str, bytes]:
    """The files of a folder by their relative paths."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}
