"""Gives malformed inputs to commands, and judges the results.

If a command succeeds, its result must be correct. If it fails, it must print one message that names the file or option
and a way out. A traceback, a hang, an empty message or files in wrong places count as lost.
"""

import os
import re
import signal
import tempfile
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from nucseg_cache import Store
from nucseg_pipeline.cli import app
from tests.torture.inputs.drawing import nuclei, picture

TIMEOUT_S = 120

WAY_OUT = re.compile(
    r"(?i)\b(Give|Leave|Name|Take|Ask|Choose|Put|Add|Move|Rename|Copy|Cut|Save|Export|Mend|Fix|Correct|Renumber|Replace"
    r"|Close|Run|Restore|Delete|Bring|Download|Finish|Free|Number|Have|Try|Train|Use|Write|Continue|Unpack|Pass|Repair"
    r"|Install|Convert|Known|Did you mean|Fetch|expected|must|needs? |in the range|Wait|Make|Resume|is not a valid"
    r"|is one way|has the folds|holds a list|Geometric are|start again|looked in|from 0|goes with|Missing|requires)\b"
)
"""Words with which a message names a way out, or the values that were expected."""

T = TypeVar("T")


class Timeout(BaseException):
    """The command took too long."""


@dataclass(frozen=True)
class Ended:
    """The result of a command."""

    status: int
    out: str
    err: str
    crash: str = ""
    """The exception, if it is not an exit."""

    def names(self, name: str) -> bool:
        """Whether the message contains a name; ignores the frames and line breaks of usage errors."""
        message = unicodedata.normalize("NFC", re.sub(r"[\s─-╿]", "", self.err))
        return unicodedata.normalize("NFC", re.sub(r"\s", "", name)) in message


def run(*arguments: object, seconds: float = TIMEOUT_S, pipes: Path | None = None) -> Ended:
    """Run a command in this process; on timeout, processes that wait for a pipe in the folder `pipes` are released."""

    def stop(*_: object) -> None:
        for pipe in (path for path in pipes.rglob("*") if path.is_fifo()) if pipes else ():
            os.close(os.open(pipe, os.O_RDWR | os.O_NONBLOCK))
        raise Timeout

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds, 1)
    try:
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    except Timeout:
        return Ended(-1, "", "", f"it did not end in {seconds} s")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    crash = "" if result.exception is None or isinstance(result.exception, SystemExit) else repr(result.exception)
    return Ended(result.exit_code, result.stdout, result.stderr, crash)


def message_problem(ended: Ended, naming: Sequence[str]) -> str:
    """What is wrong with the message of a command that failed; empty if nothing is."""
    if ended.crash or "Traceback" in ended.err or ended.status not in (1, 2):
        return ended.crash or f"exit status {ended.status}: {ended.err[-300:]}"
    if ended.status == 1 and len(re.findall(r"^error: ", ended.err, re.MULTILINE)) != 1:
        return f"not one error: {ended.err[-300:]!r}"
    if naming and not any(map(ended.names, naming)):
        return f"names none of {list(naming)}: {ended.err[-400:]!r}"
    return "" if WAY_OUT.search(ended.err) else f"no way out: {ended.err[-300:]!r}"


def listing(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and modification time of everything in a folder."""
    found = [Path(root, name) for root, folders, files in os.walk(folder) for name in (*folders, *files)]
    return {os.fsencode(path).hex(): (path.lstat().st_size, path.lstat().st_mtime_ns) for path in found}


@dataclass
class Trial:
    """Tries inputs, each in a new folder."""

    ledger: Any
    folder: Path
    n_tried: int = field(default=0)

    def new_folder(self) -> Path:
        """An empty folder; the current and the temporary folder are below it."""
        folder = self.folder / f"{self.n_tried}"
        (folder / "here").mkdir(parents=True)
        (folder / "temporary").mkdir()
        tempfile.tempdir = str(folder / "temporary")
        self.n_tried += 1
        os.chdir(folder / "here")
        return folder

    def __call__(
        self,
        fault: str,
        case: str,
        arguments: Sequence[object],
        *,
        naming: Sequence[str] = (),
        check: Callable[[Ended], str] | None = None,
        always: Callable[[], str] = lambda: "",
        untouched: Path | None = None,
        seconds: float = TIMEOUT_S,
    ) -> Ended:
        """Run a command on an input and judge the result.

        Args:
            fault: a row of the table.
            case: the input.
            arguments: of the command.
            naming: the message must contain one of these.
            check: what is wrong with the result of a command that succeeded; None if it must fail.
            always: what is wrong after the command, whether it succeeded or not.
            untouched: a folder that the command must not change.
            seconds: the time limit.
        """
        before = listing(untouched) if untouched else {}
        ended = run(*arguments, seconds=seconds, pipes=untouched)
        succeeded = ended.status == 0 and not ended.crash
        wrong = (check(ended) if check else "it was accepted") if succeeded else message_problem(ended, naming)
        wrong = wrong or always() or self._left()
        if untouched and listing(untouched) != before:
            wrong = wrong or f"{untouched} was changed"
        self.ledger.judge(fault, wrong and f"{case}: {wrong}", refused=not succeeded)
        return ended

    def _left(self) -> str:
        left = [path for name in ("here", "temporary") for path in (Path.cwd().parent / name).iterdir()]
        left = [path for path in left if not path.name.startswith("torchinductor_")]  # torch creates this folder
        return f"files were left: {left[:5]}" if left else ""


@pytest.fixture
def trial(ledger: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Trial:
    """Tries inputs, each with a new current folder and a new temporary folder."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "trials"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", None)  # restored afterwards
    return Trial(ledger, folder)


@pytest.fixture
def some_of(profile: Any) -> Callable[..., dict[str, T]]:
    """A random choice of cases; in the long profile all of them, or as many as `long`."""

    def choose(cases: Mapping[str, T], short: int, long: int = 10**6) -> dict[str, T]:
        n_cases = min(profile.trials(short=short, long=long), len(cases))
        drawn = profile.random(len(cases)).choice(len(cases), n_cases, replace=False)
        names = list(cases)
        return {names[i]: cases[names[i]] for i in sorted(drawn)}

    return choose


@dataclass(frozen=True)
class Dataset:
    """A folder data set with two valid images, to which a test adds an unusual one, and a cache."""

    trial: Trial
    folder: Path
    cache: Path
    name: str = "mine"

    @property
    def named(self) -> list[object]:
        """The options for data set, source and cache."""
        return ["--dataset", self.name, "--source", self.folder, "--cache", self.cache]

    @property
    def embed(self) -> list[object]:
        """The command that reads the images into the cache, without an encoder."""
        return ["embed", *self.named, "--encoder", "none"]

    def try_embed(self, fault: str, case: str, naming: Sequence[str] = ("odd.",), **expected: Any) -> Ended:
        """Run `embed`, which must change no input and keep the valid images."""
        options = {"always": self.valid_images_problem, "untouched": self.folder, **expected}
        return self.trial(fault, case, self.embed, naming=naming, **options)

    def image(self, name: str) -> Path:
        return self.folder / "images" / name

    def mask(self, name: str) -> Path:
        return self.folder / "masks" / name

    def add(self, name: str, image: np.ndarray | bytes, mask: np.ndarray | bytes | None = None) -> None:
        """Write an image and a mask, by default three nuclei; bytes are written to PNG files as they are."""
        for file, content in ((self.image(name), image), (self.mask(name), nuclei() if mask is None else mask)):
            path = file.with_name(f"{file.name}.png")
            if isinstance(content, bytes):
                path.write_bytes(content)
            else:
                Image.fromarray(content).save(path)

    def store(self) -> Store:
        return Store.open(self.cache / f"{self.name}.zarr")

    def valid_images_problem(self) -> str:
        """What is wrong with the valid images in the store; empty if there is no store."""
        if not (self.cache / f"{self.name}.zarr").exists():
            return ""
        store = self.store()
        store.read_samples(range(store.n_rows))
        problems = (self.pixels(name, picture(seed)) or self.ids(name, nuclei()) for seed, name in enumerate(VALID))
        return next(filter(None, problems), "")

    def pixels(self, id_: str, expected: np.ndarray, tolerance: float = 0) -> str:
        """What is wrong with the image of an id in the store."""
        store = self.store()
        if not store.has(id_):
            return f"{id_!r} is not in the store"
        found = store.read_samples([store.row_of(id_)])[0].image
        difference = np.abs(found.astype(float) - expected).mean()
        return f"the image {id_!r} differs by {difference:.2f}" if difference > tolerance else ""

    def ids(self, id_: str, expected: np.ndarray) -> str:
        """What is wrong with the instances of an id in the store."""
        store = self.store()
        if not store.has(id_):
            return f"{id_!r} is not in the store"
        found = store.read_samples([store.row_of(id_)])[0].instances
        return "" if np.array_equal(found, expected) else f"the instances of {id_!r} differ"


VALID = ("sound 0", "sound 1")


@pytest.fixture
def dataset(trial: Trial) -> Callable[[], Dataset]:
    """Creates the data set for a trial."""

    def create() -> Dataset:
        folder = trial.new_folder()
        data = Dataset(trial, folder / "slides", folder / "cache")
        for kind in ("images", "masks"):
            (data.folder / kind).mkdir(parents=True)
        for seed, name in enumerate(VALID):
            data.add(name, picture(seed))
        return data

    return create
