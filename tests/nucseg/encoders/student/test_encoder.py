"""The student as an encoder: it reads prepared images, and behaves as every encoder."""

from pathlib import Path

import numpy as np
import pytest
import torch

from nucseg.data import prepare_image
from nucseg.encoders import asked_identity, open_encoder, open_recorded
from nucseg.encoders.student.encoder import padded
from nucseg.encoders.student.file import student_bytes
from nucseg.encoders.student.metadata import Origin
from nucseg.encoders.student.network import StudentNetwork
from nucseg.encoders.student.sizes import SIZES
from nucseg.errors import ConfigError, EncoderError

RNG = np.random.default_rng(0)
OBLONG = RNG.integers(0, 256, (300, 520, 3), dtype=np.uint8)
SMALL = RNG.integers(0, 256, (100, 90, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    origin = Origin("small", {"architecture": "vit_b", "weights": "1234"}, {}, "")
    path = tmp_path_factory.mktemp("student") / "mine.safetensors"
    path.write_bytes(student_bytes(StudentNetwork(SIZES["small"], folded=True), origin))
    return path


def test_it_reads_the_prepared_image_normalised_with_sams_constants(file: Path) -> None:
    encoder = open_encoder(f"student:{file}", threads=1)
    for image, (h, w) in ((OBLONG, (148, 256)), (SMALL, (256, 230))):
        resized = encoder.resize(image)
        np.testing.assert_array_equal(resized, prepare_image(image)[:h, :w])
        np.testing.assert_array_equal(encoder.resize(resized), resized)
        tensor = padded([resized])[0].numpy()
        expected = (resized.astype(np.float64) - [123.675, 116.28, 103.53]) / [58.395, 57.12, 57.375]
        np.testing.assert_allclose(tensor[:, :h, :w], expected.transpose(2, 0, 1), atol=1e-5)
        assert not tensor[:, h:].any()
        assert not tensor[:, :, w:].any()


def test_it_encodes_batches_and_refuses_wrong_images_as_every_encoder(file: Path) -> None:
    encoder = open_encoder(f"student:{file}", threads=1, batch_size=2)
    images = [OBLONG, SMALL, OBLONG[::-1].copy()]

    rows = encoder.encode(images)

    assert rows.shape == (3, 256, 64, 64)
    assert rows.dtype == np.float32
    assert rows.flags.c_contiguous
    for image, row in zip(images, rows, strict=True):
        np.testing.assert_allclose(encoder.encode([image])[0], row, atol=1e-5)
    with pytest.raises(EncoderError, match="too long and thin for the student"):
        encoder.encode([OBLONG[:1]])
    with pytest.raises(EncoderError, match="uint8 RGB"):
        encoder.encode([OBLONG.astype(np.float32)])


def test_its_identity_is_of_the_file_and_known_without_loading_it(file: Path) -> None:
    encoder = open_encoder("student", weights=file, threads=1)

    asked = asked_identity(f"student:{file}")
    assert asked.items() <= encoder.identity.items()
    assert set(asked) == {"architecture", "weights"}
    assert encoder.identity["preprocessing"] == "prepared"
    assert encoder.identity["input_px"] == "256"
    assert encoder.provenance["teacher"] == "vit_b 1234"
    assert "imitates vit_b" in encoder.note


def test_bfloat16_is_near_float32(file: Path) -> None:
    exact, rounded = (open_encoder(f"student:{file}", precision=p, threads=1) for p in ("float32", "bfloat16"))
    a, b = exact.encode([OBLONG]), rounded.encode([OBLONG])

    assert rounded.identity["precision"] == "bfloat16"
    assert 0 < float(np.sqrt(((a - b) ** 2).mean()) / a.std()) < 0.05


def test_its_file_may_be_given_only_once(file: Path) -> None:
    with pytest.raises(ConfigError, match="reads one file: student:FILE, or --weights FILE"):
        open_encoder(f"student:{file}", weights=file)


def test_it_is_found_again_by_its_digest(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    identity = open_encoder(f"student:{file}", threads=1).identity
    monkeypatch.setenv("NUCSEG_WEIGHTS", str(tmp_path))
    with pytest.raises(EncoderError, match="are in none of"):
        open_recorded(identity, threads=1)
    (tmp_path / "under another name.safetensors").write_bytes(file.read_bytes())

    assert open_recorded(identity, threads=1).identity == identity
