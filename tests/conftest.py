"""What several test modules need."""

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with real images and a real encoder; tests that need it are skipped without it."""
    folder = Path(os.environ.get("NUCSEG_SHARED", REPOSITORY.parent / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip(f"no real data: {folder} has no data folder; set NUCSEG_SHARED to the folder that has")
    return folder
