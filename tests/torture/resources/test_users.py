"""A missing permission to write, read or list: one message names the way out, and nothing is lost."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

WITHOUT_OVERRIDE = ("setpriv", "--bounding-set", "-dac_override,-dac_read_search")
"""Root without the capabilities that override file permissions."""

DENIED = """
    slides, encoder, place, step = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), int(sys.argv[4])
    number = 0
    os.chdir(place)
    cache, store = place / "cache", place / "cache" / "mine.zarr"

    def command(name: str, **options: object) -> list[object]:
        return [name, *(part for option in options.items() for part in (f"--{option[0].replace('_', '-')}", option[1]))]

    def embed(source: Path = slides, **options: object) -> list[object]:
        return command("embed", dataset="mine", source=source, cache=cache, encoder=encoder, threads=1) + [
            part for name, value in options.items() for part in (f"--{name}", value)]

    def train(run: Path, **options: object) -> list[object]:
        return command("train", dataset="mine", cache=cache, encoder=encoder, run=run, width=2, epochs=1, format="f16",
                       batch_size=2, threads=1, device="cpu", **options)

    def must(*arguments: object) -> None:
        done = nucseg(*arguments)
        assert done.exit_code == 0, done.output

    def denied(what: str, path: Path, mode: int, arguments: list[object], names: str | Path = "") -> None:
        "Run a command while a path has another mode, then with the mode it had; every `step`-th time only."
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
            lost = f"the message does not name {names or path}"
        gone = [name for name in content if name not in digests(cache)]
        lost = lost or ", ".join(gone)
        again = nucseg(*arguments)
        if not lost and again.exit_code != 0:
            lost = f"once permitted: {again.output[-400:]}"
        report(refused=first.exit_code == 1, wrong=lost and f"{what}: {lost} (it said: {said[-500:]})")

    cache.mkdir()
    copy = place / "slides"
    shutil.copytree(slides, copy)
    denied("cache that may not be written", cache, 0o555, embed(), names=cache)
    denied("image: no permission to read", copy / "images" / "2.png", 0o000, embed(copy))
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
def ordinary_user() -> tuple[str, ...]:
    """Wrapper of a command, which then has the permissions of an ordinary user."""
    if os.geteuid() != 0:
        return ()
    if shutil.which("setpriv") is None or subprocess.run([*WITHOUT_OVERRIDE, "true"], capture_output=True).returncode:
        pytest.skip("root ignores file permissions, and setpriv, which changes that, is missing or fails")
    return WITHOUT_OVERRIDE


def test_missing_permissions(
    program: Callable[..., list[dict[str, Any]]],
    ordinary_user: tuple[str, ...],
    slides: Path,
    instant_encoder: str,
    tmp_path: Path,
    profile: Any,
    ledger: Any,
) -> None:
    step = profile.trials(short=3, long=1)

    trials = program(DENIED, slides, instant_encoder, tmp_path, step, wrapper=ordinary_user)

    assert len(trials) == 13 // step
    for trial in trials:
        ledger.judge("permission missing", wrong=trial["wrong"], refused=trial["refused"])
