"""A student's file is read with its origin, or refused."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from nucseg.encoders.student.file import read_student, student_bytes
from nucseg.encoders.student.metadata import FORMAT, Origin
from nucseg.encoders.student.network import StudentNetwork
from nucseg.encoders.student.sizes import SIZES
from nucseg.errors import EncoderError

ORIGIN = Origin("small", {"architecture": "vit_b"}, {"mine": {"n_test": 3, "centred_cosine": 0.5}}, "c0ffee")

Change = Callable[[dict[str, torch.Tensor]], object]


@pytest.fixture(scope="module")
def network() -> StudentNetwork:
    torch.manual_seed(0)
    return StudentNetwork(SIZES["small"], folded=True)


@pytest.fixture
def file(network: StudentNetwork, tmp_path: Path) -> Path:
    path = tmp_path / "student.safetensors"
    path.write_bytes(student_bytes(network, ORIGIN))
    return path


def test_weights_and_origin_are_read_as_written_in_half_precision(file: Path, network: StudentNetwork) -> None:
    found, origin = read_student(file)

    assert origin == ORIGIN
    assert not found.training
    for name, value in network.state_dict().items():
        assert torch.equal(found.state_dict()[name], value.half().float())


def test_the_same_weights_make_the_same_bytes(file: Path, network: StudentNetwork) -> None:
    assert student_bytes(network, ORIGIN) == file.read_bytes()
    assert student_bytes(network, Origin("small", {}, {}, "")) != file.read_bytes()


def changed(tensors: Change = lambda tensors: None, **origin: object) -> Callable[[Path], None]:
    """Change the tensors of a file, or fields of its origin."""

    def apply(file: Path) -> None:
        content = load_file(file)
        tensors(content)
        save_file(content, file, {FORMAT: json.dumps({**asdict(ORIGIN), **origin})})

    return apply


def with_metadata(metadata: dict[str, str]) -> Callable[[Path], None]:
    return lambda file: save_file(load_file(file), file, metadata)


def removed(file: Path) -> None:
    file.unlink()


def truncated(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1000])


def empty(file: Path) -> None:
    file.write_bytes(b"")


def a_checkpoint(file: Path) -> None:
    torch.save({"weights": torch.zeros(3)}, file)


def not_finite(tensors: dict[str, torch.Tensor]) -> None:
    tensors["place"][..., 0] = torch.nan


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (removed, "damaged: No such file"),
        (truncated, "is not a safetensors file, or is damaged"),
        (empty, "is not a safetensors file"),
        (a_checkpoint, "is not a safetensors file"),
        (with_metadata({}), r"is not a student: its metadata are \[\], expected 'nucseg-student-1'"),
        (with_metadata({"nucseg-student-9": "{}"}), "is not a student"),
        (with_metadata({FORMAT: "{"}), "origin recorded in .* is not valid"),
        (with_metadata({FORMAT: "[]"}), "origin recorded in .* is not valid"),
        (changed(colour="red"), "origin recorded in .* is not valid"),
        (changed(teacher="vit_b"), "teacher must be a mapping, got 'vit_b'"),
        (changed(teacher={"architecture": 3}), "size, teacher and configuration must be strings"),
        (changed(datasets=[]), r"datasets must be a mapping, got \[\]"),
        (changed(datasets={"mine": 3}), "mine must be a mapping, got 3"),
        (changed(datasets={"mine": {"centred_cosine": "0.9"}}), "centred_cosine and n_test must be numbers"),
        (changed(datasets={"mine": {"learned_images": [1]}}), "learned_images must be a list of strings"),
        (changed(size="huge"), "size 'huge'. Known: small, medium, large"),
        (changed(size=["small"]), "size, teacher and configuration must be strings"),
        (changed(size="large"), "weights missing, unknown or of another shape"),
        (changed(lambda tensors: tensors.pop("place")), "1 weights missing.*the first is place"),
        (changed(lambda tensors: tensors.update(more=torch.zeros(1))), "1 weights missing.*the first is more"),
        (changed(not_finite), "1 not finite, the first is place"),
    ],
)
def test_a_file_that_is_no_intact_student_is_refused(file: Path, damage: Callable[[Path], None], message: str) -> None:
    damage(file)

    with pytest.raises(EncoderError, match=message):
        read_student(file)
