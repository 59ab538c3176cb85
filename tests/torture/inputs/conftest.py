"""How an odd or malformed input is given to a command, as a user gives it, and how what came of it is judged.

A command that ends well is asked whether its result is right. One that fails has one message, which names the file or
the option and a way out. A traceback, a hang, an empty message, files left in wrong places: lost.
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

SIDE_PX = 256
"""Images of the side of the prepared ones are stored as they are, so that every pixel can be compared."""

HANG_SECONDS = 60

WAY_OUT = re.compile(
    r"(?i)\b(Give|Leave|Name|Take|Ask|Choose|Put|Add|Move|Rename|Copy|Cut|Save|Export|Mend|Fix|Correct|Renumber|Replace|Close|Run|Restore|Delete|Bring|Download"
    r"|Finish|Free|Number|Have|Try|Train|Use|Write|Continue|Unpack|Known|Did you mean|Fetch|fetch|expected|must"
    r"|needs? "
    r"|run the command again|in the range|Wait|Make|Resume|is not a valid|is one way|has the folds|holds a list"
    r"|Geometric are|known are"
    r"|start again|move |looked in|from 0|goes with|Missing|requires)\b"
)
"""Words with which a message says what to do, or what would have been right."""

T = TypeVar("T")


class Hang(BaseException):
    """A command that took far too long."""


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    status: int
    out: str
    err: str
    crash: str = ""
    """What was raised, where something was that is no exit."""

    @property
    def told(self) -> str:
        """What it said went wrong, without the frame and the line breaks of usage errors, and composed."""
        return unicodedata.normalize("NFC", re.sub(r"[\s─-╿]", "", self.err))


def run(*arguments: object, seconds: float = HANG_SECONDS, around: Path | None = None) -> Ended:
    """Run a command in this process; what waits for a pipe in the folder `around` is let go when time is up."""

    def over(*_: object) -> None:
        for pipe in (one for one in around.rglob("*") if one.is_fifo()) if around else ():
            os.close(os.open(pipe, os.O_RDWR | os.O_NONBLOCK))
        raise Hang

    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, seconds, 1)
    try:
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    except Hang:
        return Ended(-1, "", "", f"it hung for more than {seconds} s")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    crash = "" if result.exception is None or isinstance(result.exception, SystemExit) else repr(result.exception)
    return Ended(result.exit_code, result.stdout, result.stderr, crash)


def fault_of(ended: Ended, naming: Sequence[str]) -> str:
    """What is wrong with the message of a command that failed; empty if nothing is."""
    if ended.crash or "Traceback" in ended.err or ended.status not in (1, 2):
        return ended.crash or f"exit status {ended.status}: {ended.err[-300:]}"
    if ended.status == 1 and len(re.findall(r"^error: ", ended.err, re.MULTILINE)) != 1:
        return f"not one error: {ended.err[-300:]!r}"
    if naming and not any(_packed(name) in ended.told for name in naming):
        return f"names none of {list(naming)}: {ended.err[-400:]!r}"
    return "" if WAY_OUT.search(ended.err) else f"no way out: {ended.err[-300:]!r}"


def _packed(name: str) -> str:
    return unicodedata.normalize("NFC", re.sub(r"\s", "", name))


def listing(folder: Path) -> dict[str, tuple[int, int]]:
    """What lies in a folder, and when it was changed."""
    found = [Path(root, name) for root, folders, files in os.walk(folder) for name in (*folders, *files)]
    return {os.fsencode(one).hex(): (one.lstat().st_size, one.lstat().st_mtime_ns) for one in found}


@dataclass
class Trial:
    """Tries one input after the other, each in a place of its own."""

    ledger: Any
    place: Path
    n_tried: int = field(default=0)

    def fresh(self) -> Path:
        """An empty folder, which is the current one too."""
        folder = self.place / f"{self.n_tried}"
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
        right: Callable[[Ended], str] | None = None,
        kept: Callable[[], str] = lambda: "",
        untouched: Path | None = None,
        seconds: float = HANG_SECONDS,
    ) -> Ended:
        """Give the input to a command and judge.

        Args:
            fault: the row of the table.
            case: which input it is.
            arguments: of the command.
            naming: one of these stands in the message.
            right: what is wrong with the result of a command that ended well; None where it must not.
            kept: what is wrong with what has to be there in any case.
            untouched: a folder that no command may change.
            seconds: after which it hangs.
        """
        before = listing(untouched) if untouched else {}
        ended = run(*arguments, seconds=seconds, around=untouched)
        if ended.status == 0 and not ended.crash:
            wrong = right(ended) if right else "it was taken for right"
        else:
            wrong = fault_of(ended, naming)
        wrong = wrong or kept() or self._left()
        if untouched and listing(untouched) != before:
            wrong = wrong or f"{untouched} was changed"
        if wrong:
            self.ledger.lost(fault, f"{case}: {wrong}")
        else:
            (self.ledger.survived if ended.status == 0 else self.ledger.detected)(fault)
        return ended

    def _left(self) -> str:
        left = [one for name in ("here", "temporary") for one in (Path.cwd().parent / name).iterdir()]
        left = [one for one in left if not one.name.startswith("torchinductor_")]  # torch makes this folder
        return f"files were left: {left[:5]}" if left else ""


@pytest.fixture
def trial(ledger: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Trial:
    """Tries inputs; the current folder and the temporary one are new for each."""
    monkeypatch.chdir(tmp_path)
    place = tmp_path / "trials"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", None)  # put back afterwards
    return Trial(ledger, place)


@pytest.fixture
def some_of(profile: Any) -> Callable[..., dict[str, T]]:
    """As many cases as said, drawn by chance; in the long profile all of them, unless another number is said for it."""

    def chosen(cases: Mapping[str, T], short: int, long: int = 10**6) -> dict[str, T]:
        n = min(profile.trials(short=short, long=long), len(cases))
        drawn = profile.random(len(cases)).choice(len(cases), n, replace=False)
        names = list(cases)
        return {names[i]: cases[names[i]] for i in sorted(drawn)}

    return chosen


def picture(seed: int = 0, height: int = SIDE_PX, width: int = SIDE_PX) -> np.ndarray:
    """Colours that run smoothly, with a pattern that says which way is up; so that JPEG loses little."""
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / (20 + seed)) * np.cos(y / 30), x / max(width, 2), y / max(height, 2)]
    return np.stack([(wave + 1) * 80 + 10 * seed for wave in waves], axis=-1).clip(0, 255).astype(np.uint8)


def nuclei(height: int = SIDE_PX, width: int = SIDE_PX) -> np.ndarray:
    """Ids 1 to 3 of squares that do not touch, where there is room for them."""
    ids = np.zeros((height, width), np.uint16)
    for number in range(1, 4):
        ids[20 * number : 20 * number + 12, 30 * number : 30 * number + 12] = number
    return ids


@dataclass(frozen=True)
class Slides:
    """A folder data set of two sound images, beside which odd ones are put, and the cache it goes to."""

    folder: Path
    cache: Path
    dataset: str = "mine"

    @property
    def embed(self) -> list[object]:
        """The command that takes the images in, without an encoder."""
        return ["embed", *self.named, "--encoder", "none"]

    @property
    def named(self) -> list[object]:
        """Data set, source and cache."""
        return ["--dataset", self.dataset, "--source", self.folder, "--cache", self.cache]

    def image(self, name: str) -> Path:
        return self.folder / "images" / name

    def mask(self, name: str) -> Path:
        return self.folder / "masks" / name

    def store(self) -> Store:
        return Store.open(self.cache / f"{self.dataset}.zarr")

    def sound_kept(self) -> str:
        """Whether the store is whole, and holds the sound images as they are; nothing if no store was made."""
        if not (self.cache / f"{self.dataset}.zarr").exists():
            return ""
        store = self.store()
        store.read_samples(range(store.n_rows))
        sound = [_differing(store, name, picture(seed), nuclei()) for seed, name in enumerate(SOUND)]
        return next(filter(None, sound), "")

    def pixels(self, id_: str, expected: np.ndarray, tolerance: float = 0) -> str:
        """What is wrong with the image of an id in the store."""
        return _differing(self.store(), id_, image=expected, tolerance=tolerance)

    def ids(self, id_: str, expected: np.ndarray) -> str:
        """What is wrong with the instances of an id in the store."""
        return _differing(self.store(), id_, instances=expected)


def _differing(
    store: Store,
    id_: str,
    image: np.ndarray | None = None,
    instances: np.ndarray | None = None,
    tolerance: float = 0,
) -> str:
    if not store.has(id_):
        return f"{id_!r} is not in the store"
    found = store.read_samples([store.row_of(id_)])[0]
    off = np.abs(found.image.astype(float) - image).mean() if image is not None else 0
    if off > tolerance:
        return f"the image {id_!r} is off by {off:.2f}"
    same = instances is None or np.array_equal(found.instances, instances)
    return "" if same else f"the instances of {id_!r} are others"


SOUND = ("sound 0", "sound 1")


@pytest.fixture
def slides(trial: Trial) -> Callable[[], Slides]:
    """Makes the data set anew for a trial."""

    def made() -> Slides:
        place = trial.fresh()
        data = Slides(place / "slides", place / "cache")
        for kind in ("images", "masks"):
            (data.folder / kind).mkdir(parents=True)
        for seed, name in enumerate(SOUND):
            Image.fromarray(picture(seed)).save(data.image(f"{name}.png"))
            Image.fromarray(nuclei()).save(data.mask(f"{name}.png"))
        return data

    return made


@pytest.fixture
def draw() -> Any:
    """The pictures and masks above, for modules that cannot import this one."""

    class Drawn:
        picture = staticmethod(picture)
        nuclei = staticmethod(nuclei)
        run = staticmethod(run)
        fault_of = staticmethod(fault_of)

    return Drawn
