"""Copies of what the user has downloaded are complete, or the reason is reported."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nucseg_pipeline.fetch.catalogue import CATALOGUE
from nucseg_pipeline.fetch.errors import FetchError
from nucseg_pipeline.fetch.local_copy import copy_file, copy_folder

N_BYTES = 100_000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One image of the Data Science Bowl, in a file of more than 100,000 bytes."""
    images = {"images/a": np.random.default_rng(0).integers(0, 256, (200, 200, 3)), "masks/1": np.eye(200) * 255}
    for name, values in images.items():
        png = io.BytesIO()
        Image.fromarray(values.astype(np.uint8)).save(png, "png")
        file = tmp_path / "folder" / "a" / f"{name}.png"
        file.parent.mkdir(parents=True)
        file.write_bytes(png.getvalue())
    return tmp_path / "folder"


def test_a_full_disk_is_reported_with_the_file(folder: Path, tmp_path: Path, max_file_size) -> None:
    (tmp_path / "weights.pth").write_bytes(bytes(N_BYTES))

    with max_file_size(N_BYTES // 2):
        with pytest.raises(FetchError, match=r"weights\.pth cannot be copied .*too large"):
            copy_file(tmp_path / "weights.pth", tmp_path / "copy.pth")
        with pytest.raises(FetchError, match=r"a/images/a\.png cannot be copied .*too large"):
            copy_folder(CATALOGUE["dsb2018"], folder, tmp_path / "copy", lambda *_: None)


def test_a_folder_is_not_copied_over_another(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "copy").mkdir()

    with pytest.raises(FetchError, match=r"folder cannot be copied to .*: File exists"):
        copy_folder(CATALOGUE["dsb2018"], folder, tmp_path / "copy", lambda *_: None)
