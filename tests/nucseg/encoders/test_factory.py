"""An encoder is opened by its name, and its identity includes what the arguments determine."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from nucseg.encoders import asked_identity, encoder_names, named_file, open_encoder
from nucseg.errors import ConfigError

FIELDS = {"architecture", "weights", "layer", "input_px", "preprocessing", "precision"}


@pytest.fixture
def threads_kept() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_the_known_names_are_sams_encoders_students_onnx_and_random() -> None:
    known = ("vit_b", "vit_l", "vit_h", "student", "student:FILE", "onnx:FILE", "random", "random:SEED")
    assert encoder_names() == known


@pytest.mark.parametrize(
    ("spec", "precision"), [("random", "auto"), ("random:7", "float32"), ("random:007", "bfloat16")]
)
def test_what_is_asked_for_is_part_of_what_is_opened(spec: str, precision: str) -> None:
    asked = asked_identity(spec, precision=precision)
    opened = open_encoder(spec, device="cpu", precision=precision)

    assert asked.items() <= opened.identity.items()
    assert set(opened.identity) == FIELDS | {"seed"}
    assert ("precision" in asked) == (precision != "auto")


def test_the_asked_identity_has_only_fields_that_the_arguments_determine(tmp_path: Path) -> None:
    assert asked_identity("vit_b") == {"architecture": "vit_b"}
    (tmp_path / "empty").touch()
    empty = {"weights": "99aa06d3014798d86001c324468d497f"}  # xxh128 of nothing
    assert asked_identity("vit_l", weights=tmp_path / "empty") == {"architecture": "vit_l", **empty}
    assert asked_identity(f"onnx:{tmp_path / 'empty'}") == {"architecture": "onnx", **empty}
    assert asked_identity("onnx", weights=tmp_path / "empty") == {"architecture": "onnx", **empty}


def test_the_home_folder_may_be_abbreviated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "empty").touch()

    assert asked_identity("onnx:~/empty") == asked_identity("vit_b", weights=Path("~/empty")) | {"architecture": "onnx"}


def test_threads_are_set_and_recorded(threads_kept: None) -> None:
    encoder = open_encoder("random", device="cpu", threads=3)

    assert torch.get_num_threads() == 3
    assert encoder.provenance["threads"] == "3"
    assert encoder.provenance["torch"] == torch.__version__


def test_a_batch_size_given_is_taken() -> None:
    assert open_encoder("random", device="cpu").batch_size == 1
    assert open_encoder("random", device="cpu", batch_size=5).batch_size == 5


@pytest.mark.parametrize(
    ("spec", "options", "message"),
    [
        (
            "vit_x",
            {},
            r"Did you mean 'vit_l'\? Known: vit_b, vit_l, vit_h, student, student:FILE, onnx:FILE",
        ),
        ("", {}, "is not known"),
        ("vit_b:FILE", {}, "--weights"),
        ("onnx", {}, "onnx:FILE"),
        ("onnx:", {}, "onnx:FILE"),
        ("onnx:a", {"weights": Path("b")}, "one file"),
        ("random:x", {}, "whole number"),
        ("random:-1", {}, "whole number"),
        ("random", {"weights": Path("b")}, "takes no --weights"),
        ("random", {"precision": "int8"}, "'int8' is not known. Known: auto, float32, bfloat16, float16"),
        ("random", {"device": "gpu"}, "'gpu' is not known"),
        ("random", {"threads": 0}, "threads must be at least 1, got 0"),
        ("random", {"batch_size": -2}, "batch_size must be at least 1, got -2"),
        ("onnx:a", {"precision": "bfloat16"}, "bfloat16"),
        ("onnx:a", {"batch_size": 0}, "batch_size must be at least 1, got 0"),
    ],
)
def test_an_invalid_option_is_refused(spec: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        open_encoder(spec, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("spec", "file"),
    [("onnx:a:b.onnx", "a:b.onnx"), ("student:s/x.safetensors", "s/x.safetensors"), ("student", ""), ("random:3", "")],
)
def test_named_file_is_the_file_in_a_spec(spec: str, file: str) -> None:
    assert named_file(spec) == file
