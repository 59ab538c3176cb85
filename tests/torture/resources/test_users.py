"""An ordinary user who may not write, read or look into something: one message with the way out, and nothing harmed."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

LIKE_OTHERS = ("setpriv", "--bounding-set", "-dac_override,-dac_read_search")
"""Root without its right to pass every permission: files that it owns and may not read, it cannot read."""

EVERYTHING = """
    slides, place, step = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    number = 0
    os.chdir(place)
    cache, store = place / "cache", place / "cache" / "mine.zarr"
    WEIGHTS = {"--encoder": "random", "--threads": "1"}

    def command(name: str, **options: object) -> list[object]:
        return [name, *(part for option in options.items() for part in (f"--{option[0].replace('_', '-')}", option[1]))]

    def embed(source: Path = slides, **options: object) -> list[object]:
        return command("embed", dataset="mine", source=source, cache=cache, encoder="random", threads=1) + [
            part for name, value in options.items() for part in (f"--{name}", value)]

    def train(run: Path, **options: object) -> list[object]:
        return command("train", dataset="mine", cache=cache, encoder="random", run=run, width=2, epochs=1, format="f16",
                       batch_size=2, threads=1, device="cpu", **options)

    def must(*arguments: object) -> None:
        done = nucseg(*arguments)
        assert done.exit_code == 0, done.output

    def denied(what: str, path: Path, mode: int, arguments: list[object], names: str | Path = "") -> None:
        "Run a command while a file or folder has a mode, then again with the mode it had; only every so many times."
        global number
        number += 1
        if number % step:
            return
        before, content = path.stat().st_mode, digests(cache)
        path.chmod(mode)
        first = nucseg(*arguments)
        path.chmod(before)
        lost = wrong(first)
        said = first.stderr
        if not lost and first.exit_code == 1 and str(names or path) not in said:
            lost = f"{names or path} is not named"
        gone = [name for name in content if name not in digests(cache)]
        lost = lost or ", ".join(gone)
        again = nucseg(*arguments)
        if not lost and again.exit_code != 0:
            lost = f"with the permission: {again.output[-400:]}"
        told(refused=first.exit_code == 1, wrong=lost and f"{what}: {lost} (it said: {said[-500:]})")

    cache.mkdir()
    copy = place / "slides"
    shutil.copytree(slides, copy)
    denied("cache that may not be written", cache, 0o555, embed(), names=cache)
    denied("image that may not be read", copy / "images" / "2.png", 0o000, embed(copy))
    denied("folder of images that may not be read", copy / "images", 0o000, embed(copy))
    denied("mask that may not be read", copy / "masks" / "2.png", 0o000, embed(copy))
    denied("store that may not be written", store / "embeddings", 0o555, embed(copy, format="i8"), names=store)
    denied("store that may not be looked into", store, 0o000, embed(copy))
    denied("store whose samples may not be read", store / "samples", 0o000, train(place / "a run"), names=store)
    denied("store that may not be read by train", store, 0o000, train(place / "another run"))
    runs = place / "runs"
    runs.mkdir()
    denied("place for runs that may not be written", runs, 0o555, train(runs / "one"))
    must(*train(runs / "two"))
    denied("weights that may not be read", runs / "one" / "best.pt", 0o000,
           command("report") + [runs / "one", "--out", place / "report"])
    denied("place for reports that may not be written", runs, 0o555,
           command("report") + [runs / "two", "--out", runs / "report"], names=runs)
    recipe = place / "recipe.toml"
    recipe.write_text("[train]\\nwidth = 2")
    denied("recipe that may not be read", recipe, 0o000, train(runs / "three", recipe=recipe))
    denied("store that may not be verified", store / "embeddings", 0o000, ["cache", "verify", store], names=store)
"""


@pytest.fixture
def ordinary() -> tuple[str, ...]:
    """What is put before a command so that permissions hold for it."""
    if os.geteuid() != 0:
        return ()
    if shutil.which("setpriv") is None or subprocess.run([*LIKE_OTHERS, "true"], capture_output=True).returncode:
        pytest.skip("root passes every permission, and this machine has no setpriv to give that right up")
    return LIKE_OTHERS


def test_permissions_that_are_missing(
    program: Callable[..., list[dict[str, Any]]],
    ordinary: tuple[str, ...],
    slides: Path,
    tmp_path: Path,
    profile: Any,
    ledger: Any,
) -> None:
    step = profile.trials(short=3, long=1)

    trials = program(EVERYTHING, slides, tmp_path, step, before=ordinary)

    assert len(trials) == 13 // step
    for trial in trials:
        ledger.judge("permission that is missing", wrong=trial["wrong"], refused=trial["refused"])
