"""Whole commands in processes of their own, to be killed at any moment, and what they leave on the disk."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nucseg_cache import Store, StoreNotFound, prune, verify

NURSERY = Path(__file__).parent / "nursery.py"

N_IMAGES = 5
"""Enough for a training: three to learn from, one to choose by, one to test on."""

PATIENCE_S = 120.0
"""The longest that any command here may take on a busy machine."""


@dataclass
class Command:
    """A command that was started."""

    process: int
    output: Path
    poll: Callable[[], int | None]
    """How it ended: its exit status, or the negative number of the signal that killed it; None while it runs."""

    @property
    def text(self) -> str:
        """What it has printed so far."""
        return self.output.read_text()

    def wait(self, seconds: float = PATIENCE_S) -> int:
        """How it ended."""
        end = time.monotonic() + seconds
        while (status := self.poll()) is None:
            assert time.monotonic() < end, f"it did not end in {seconds} s:\n{self.text}"
            time.sleep(0.005)
        return status

    def stop(self, after: float, *, how: signal.Signals = signal.SIGKILL) -> int:
        """Send it a signal after so many seconds; how it ended, which is by itself where that was earlier."""
        time.sleep(after)
        return self.send(how).wait()

    def send(self, how: signal.Signals = signal.SIGKILL) -> "Command":
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.process, how)
        return self

    def until(self, condition: Callable[[], object]) -> "Command":
        """Wait until something is so, or it has ended."""
        while not condition() and self.poll() is None:
            time.sleep(0.001)
        return self

    def number(self, pattern: str) -> int:
        """A number that it printed."""
        found = re.search(pattern, self.text)
        assert found, f"{pattern} is not in:\n{self.text}"
        return int(found[1])


@dataclass
class Nursery:
    """Starts commands as forks of a process that has imported everything; see nursery.py."""

    modules: Sequence[str]
    outputs: Path
    """Where the commands' outputs go, one file each."""
    _process: "subprocess.Popen[str] | None" = None
    _running: set[int] = field(default_factory=set)
    _n_started: int = 0

    def __call__(self, *arguments: object, begun: Path | None = None) -> Command:
        """Start `nucseg ARGUMENTS`; one byte goes to the file `begun` for each image whose encoding has begun."""
        self._n_started += 1
        output = self.outputs / f"{self._n_started}.txt"
        output.touch()
        asked = {"start": [*map(str, arguments)], "output": str(output), "begun": begun and str(begun)}
        process = self._ask(asked)
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
        if self._process is None:
            command = [sys.executable, str(NURSERY), *self.modules]
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            self._read()
        assert self._process.stdin
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer = self._read()
        assert answer is None or isinstance(answer, int)
        return answer

    def _read(self) -> object:
        assert self._process
        assert self._process.stdout
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        """End everything that was started."""
        for process in self._running:
            os.kill(process, signal.SIGKILL)
        if self._process is not None:
            self._process.communicate()


@pytest.fixture(scope="module")
def nucseg(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    """Starts `nucseg` commands that have imported the modules that the test module's PRELOADED names."""
    nursery = Nursery(request.module.PRELOADED, tmp_path_factory.mktemp("output"))
    yield nursery
    nursery.close()


@dataclass(frozen=True)
class Slides:
    """A folder of small images and masks, and the encoder that they are shown to."""

    folder: Path
    encoder: str

    def repaint(self, number: int, version: int) -> None:
        """Replace one image on the disk by another, in one step."""
        file = self.folder / "images" / f"{number:02}.png"
        draw_image(number, version).save(file.with_suffix(".new"), "png")
        file.with_suffix(".new").replace(file)


def draw_image(number: int, version: int = 0) -> Image.Image:
    """Noise that is never the same twice."""
    return Image.fromarray(np.random.default_rng((number, version)).integers(0, 256, (40, 32, 3), dtype=np.uint8))


def draw_slides(folder: Path, encoder: str, n_images: int) -> Slides:
    """Make a folder of images, each with the same two nuclei."""
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    mask = np.zeros((40, 32), np.uint8)
    mask[5:12, 3:9], mask[20:30, 20:28] = 1, 2
    for number in range(n_images):
        draw_image(number).save(folder / "images" / f"{number:02}.png")
        Image.fromarray(mask).save(folder / "masks" / f"{number:02}.png")
    return Slides(folder, encoder)


@dataclass
class Place:
    """A cache in which a data set is embedded, again and again."""

    nucseg: Nursery
    slides: Slides
    cache: Path

    @property
    def store(self) -> Path:
        """Where its store is, or will be."""
        return self.cache / "mine.zarr"

    @property
    def begun(self) -> Path:
        """Holds a byte for each image whose encoding was begun in it."""
        return self.cache.with_name(f"{self.cache.name}.begun")

    def arguments(self, *more: object) -> list[object]:
        """Those of the `embed` that fills it."""
        named = ["--dataset", "mine", "--source", self.slides.folder, "--cache", self.cache]
        return ["embed", *named, "--encoder", self.slides.encoder, "--threads", 1, "--device", "cpu", *more]

    def embed(self, *more: object) -> Command:
        """Begin to fill it."""
        return self.nucseg(*self.arguments(*more), begun=self.begun)

    def train_arguments(self, run: Path, *more: object) -> list[object]:
        """Those of the `train` of a small network on it."""
        named = ["--dataset", "mine", "--cache", self.cache, "--encoder", self.slides.encoder, "--run", run]
        network = ["--model", "unet", "--fusion", "concat", "--width", 2, "--epochs", 3, "--batch-size", 2]
        return ["train", *named, *network, "--threads", 1, "--device", "cpu", *more]

    def train(self, run: Path, *more: object) -> Command:
        """Begin to train."""
        return self.nucseg(*self.train_arguments(run, *more))

    def n_begun(self) -> int:
        """How many images the encoder has begun with, over all commands."""
        return self.begun.stat().st_size if self.begun.exists() else 0

    def n_there(self) -> int:
        """How many embeddings it holds, in all views; -1 where there is no store yet."""
        try:
            store = Store.open(self.store)
        except StoreNotFound:
            return -1
        groups = [store.embeddings(key, view) for key in store.keys() for view in store.views(key)]  # noqa: SIM118
        return sum(len(group.embedded_rows()) for group in groups)

    def trouble(self) -> str:
        """What `cache verify` finds in it; nothing where there is no store yet."""
        try:
            found = verify(self.store, clear=False)
        except StoreNotFound:
            return f"{self.store} is there, and is no store" if self.store.exists() else ""
        return "; ".join(map(str, found.findings))

    def differences(self, undisturbed: "Place") -> str:
        """How its store, after `cache prune`, differs from another one; and what else is beside it."""
        prune(self.store)
        beside = {path.name for path in self.cache.iterdir()} - {self.store.name, f".{self.store.name}.lock"}
        unlike = differing(self.store, undisturbed.store)
        return "; ".join(
            [*(f"left beside the store: {name}" for name in sorted(beside)), *([unlike] if unlike else [])]
        )


Places = Callable[..., Place]


def places(nucseg: Nursery, encoder: str, folder: Path) -> Places:
    """Makes empty caches; `slides` are those of another place, or new ones that a test may change."""

    def make(slides: Slides | None = None, n_images: int = N_IMAGES) -> Place:
        number = len(list(folder.iterdir()))
        slides = slides or draw_slides(folder / f"slides {number}", encoder, n_images)
        cache = folder / f"cache {number}"
        cache.mkdir()
        return Place(nucseg, slides, cache)

    return make


@pytest.fixture
def place(nucseg: Nursery, instant_encoder: str, tmp_path: Path) -> Places:
    """See `places`."""
    (tmp_path / "places").mkdir()
    return places(nucseg, instant_encoder, tmp_path / "places")


@pytest.fixture(scope="module")
def place_for_all(nucseg: Nursery, instant_encoder: str, tmp_path_factory: pytest.TempPathFactory) -> Places:
    """As `place`, for what several tests of a module look at."""
    return places(nucseg, instant_encoder, tmp_path_factory.mktemp("places"))


def differing(found: Path, expected: Path) -> str:
    """How the files of two folders differ."""
    ours, theirs = files_of(found), files_of(expected)
    names = [name for name in sorted({*ours, *theirs}) if ours.get(name) != theirs.get(name)]
    return f"{len(names)} files differ, the first is {names[0]}" if names else ""


def files_of(folder: Path) -> dict[str, bytes]:
    """Everything in a folder, by its path in it."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}
