"""Programs in child processes: on a small disk, with little memory, or with the permissions of an ordinary user."""

import inspect
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

SIDE_PX = 48
N_IMAGES = 6

PRELUDE = '''
import contextlib, hashlib, json, os, shutil, sys, threading, time
from pathlib import Path
from typing import Any
from typer.testing import CliRunner
from nucseg_pipeline.cli import app


def nucseg(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def wrong(result: Any) -> str:
    """What is wrong with the end of a command; empty if it succeeded, or failed with one error message."""
    if result.exit_code == 0:
        return ""
    if result.exit_code != 1 or result.stderr.count("error: ") != 1 or "Traceback" in result.output:
        return f"it ended with {result.exit_code}, {result.exception!r}: {result.stderr[-500:]}"
    return ""


def digests(folder: Path) -> dict[str, str]:
    """The digest of every file below a folder."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def report(**trial: object) -> None:
    print("TRIAL " + json.dumps(trial), flush=True)
'''


@pytest.fixture(scope="session")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder data set of a few random images; read only."""
    folder = tmp_path_factory.mktemp("slides")
    for kind in ("images", "masks"):
        (folder / kind).mkdir()
    for n in range(N_IMAGES):
        random = np.random.default_rng(n)
        y, x = np.mgrid[:SIDE_PX, :SIDE_PX]
        nucleus = (y - random.integers(12, 36)) ** 2 + (x - random.integers(12, 36)) ** 2 < 60
        image = random.integers(0, 90, (SIDE_PX, SIDE_PX, 3)) + 120 * nucleus[..., None]
        Image.fromarray(image.astype(np.uint8)).save(folder / "images" / f"{n}.png")
        Image.fromarray(nucleus.astype(np.uint8)).save(folder / "masks" / f"{n}.png")
    return folder


@pytest.fixture
def program(tmp_path: Path) -> Callable[..., list[dict[str, Any]]]:
    """Run a Python program that starts with the prelude; returns the trials that it reports."""

    def run(source: str, *arguments: object, wrapper: tuple[str, ...] = ()) -> list[dict[str, Any]]:
        command = [*wrapper, sys.executable, "-c", f"{PRELUDE}\n{inspect.cleandoc(source)}", *map(str, arguments)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "HOME": str(tmp_path)}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=3600)
        lines = [line.removeprefix("TRIAL ") for line in done.stdout.splitlines() if line.startswith("TRIAL ")]
        assert done.returncode == 0, f"{done.stdout[-6000:]}\n{done.stderr[-3000:]}"
        return [json.loads(line) for line in lines]

    return run
