"""An encoder is found by the identity that embeddings record."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from nucseg.encoders import open_encoder, open_recorded
from nucseg.errors import EncoderError

IMAGE = np.random.default_rng(0).integers(0, 256, (40, 64, 3), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NUCSEG_WEIGHTS", str(tmp_path / "weights"))
    (tmp_path / "weights").mkdir()
    return tmp_path / "weights"


@pytest.fixture
def exported(instant_encoder: str) -> Path:
    return Path(instant_encoder.removeprefix("onnx:"))


def test_random_weights_are_drawn_again_from_the_seed() -> None:
    opened = open_encoder("random:3", threads=1)
    found = open_recorded({**opened.identity, "format": "f16"}, threads=1)
    np.testing.assert_array_equal(found.encode([IMAGE]), opened.encode([IMAGE]))


def test_a_file_is_found_by_its_content_under_any_name(exported: Path, folder: Path) -> None:
    identity = open_encoder(f"onnx:{exported}").identity
    (folder / "a.onnx").write_bytes(b"another encoder")
    shutil.copy(exported, folder / "some name.onnx")
    assert open_recorded(identity).identity == identity


def test_a_file_is_found_where_it_was(exported: Path, folder: Path, tmp_path: Path) -> None:
    identity = open_encoder(f"onnx:{exported}").identity
    with pytest.raises(EncoderError, match=rf"{identity['weights']} are in none of {folder}.*--weights FILE"):
        open_recorded(identity, hints=[tmp_path / "gone.onnx"])
    assert open_recorded(identity, hints=[tmp_path / "gone.onnx", exported]).identity == identity


def test_a_file_that_is_given_must_be_the_one(exported: Path, folder: Path) -> None:
    identity = open_encoder(f"onnx:{exported}").identity
    assert open_recorded(identity, weights=exported).identity == identity
    (folder / "other.onnx").write_bytes(b"another encoder")
    with pytest.raises(EncoderError, match=rf"its xxh128 is [0-9a-f]{{32}}, expected {identity['weights']}"):
        open_recorded(identity, weights=folder / "other.onnx")


def test_an_encoder_that_works_otherwise_than_recorded_is_refused(exported: Path) -> None:
    identity = open_encoder(f"onnx:{exported}").identity
    with pytest.raises(EncoderError, match="preprocessing: recorded older, opened sam"):
        open_recorded({**identity, "preprocessing": "older"}, weights=exported)
