"""What is installed is what is used: the wheel runs every command without a library that it does not declare."""

import json
import os
import subprocess
import sys
import venv
from collections.abc import Iterator
from importlib.metadata import Distribution, distribution, distributions
from importlib.util import find_spec
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.conftest import REPOSITORY

pytestmark = pytest.mark.installation

NOT_DECLARED = ("hypothesis", "onnxruntime", "openslide", "playwright", "pytest", "s3fs", "tensorboard")
"""Modules of extras and of the development environment."""


def required(wheel: Distribution) -> dict[str, Distribution]:
    """The distributions that pip installs with a wheel without extras: its requirements, theirs, and so on."""
    found: dict[str, Distribution] = {}
    pending = [(wheel, "")]
    while pending:
        parent, extra = pending.pop()
        for requirement in map(Requirement, parent.requires or ()):
            if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
                continue
            name = canonicalize_name(requirement.name)
            installed = distribution(name)
            assert requirement.specifier.contains(installed.version, prereleases=True), f"{name} {installed.version}"
            if name not in found:
                pending.append((installed, ""))
            pending += [(installed, wanted) for wanted in requirement.extras]
            found[name] = installed
    return found


def files_of(installed: Distribution) -> Iterator[Path]:
    """The files of a distribution below site-packages, as its RECORD lists them."""
    for file in installed.files or ():
        if ".." not in file.parts and file.suffix not in (".pyc", ".pth"):
            yield Path(file)


def link(installed: Distribution, site_packages: Path) -> None:
    """Link the files of a distribution into an environment."""
    for file in files_of(installed):
        target = site_packages / file
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            target.symlink_to(installed.locate_file(file))


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment in which the wheel is installed without extras.

    A fresh installation would download gigabytes. Python imports what lies in site-packages, and pip puts there the
    files that the RECORD of each distribution lists. This environment has links to the same files of the same
    distributions: those that the wheel requires without extras, directly or not, and no others. It differs from a fresh
    installation in nothing but the choice of versions, which are those of constraints.txt.
    """
    place = tmp_path_factory.mktemp("installation")
    isolation = ["--no-build-isolation"] if find_spec("hatchling") else []  # without it, pip downloads the builder
    build = (sys.executable, "-m", "pip", "wheel", "--no-deps", *isolation, "--quiet")
    subprocess.run([*build, "--wheel-dir", place, REPOSITORY], check=True)
    (wheel,) = place.glob("nucseg-*.whl")
    venv.create(place / "env", with_pip=False, symlinks=True)
    python = place / "env" / "bin" / "python"
    install = (sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", "--quiet")
    subprocess.run([*install, wheel], check=True)
    (site_packages,) = (place / "env" / "lib").glob("python*/site-packages")
    (installed,) = distributions(path=[str(site_packages)])
    for needed in required(installed).values():
        link(needed, site_packages)
    return python


def run(python: Path, *words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run the interpreter as a user without settings of this package, isolated from this repository."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("NUCSEG", "PYTHON"))}
    environment |= {
        "HOME": str(cwd),
        "XDG_CACHE_HOME": str(cwd / "cache"),
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
    return subprocess.run([python, "-I", *words], cwd=cwd, env=environment, capture_output=True, text=True, check=False)


def test_nothing_else_can_be_imported(python: Path, tmp_path: Path) -> None:
    code = (
        "import importlib.util, json, sys, nucseg_pipeline; "
        "print(json.dumps([nucseg_pipeline.__file__, [n for n in sys.argv[1:] if importlib.util.find_spec(n)]]))"
    )

    result = run(python, "-c", code, *NOT_DECLARED, cwd=tmp_path)

    place, importable = json.loads(result.stdout)
    assert Path(place).is_relative_to(python.parents[1])
    assert importable == []


def test_the_command_is_installed(python: Path, tmp_path: Path) -> None:
    result = subprocess.run([python.parent / "nucseg", "--version"], cwd=tmp_path, capture_output=True, text=True)

    assert (result.returncode, result.stdout.strip()) == (0, distribution("nucseg").version)


def test_every_command_runs_with_every_name_that_its_options_take(python: Path, tmp_path: Path) -> None:
    script = Path(__file__).with_name("run_commands.py")

    result = run(python, str(script), cwd=tmp_path)

    assert result.returncode == 0, result.stderr[-4000:]
    assert "commands ran" in result.stdout
