"""A student's file: whole or refused, with what it was made from."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from nucseg.encoders.student.file import read_student, student_bytes
from nucseg.encoders.student.metadata import FORMAT, Origin
from nucseg.encoders.student.network import StudentNetwork
from nucseg.encoders.student.sizes import SIZES
from nucseg.errors import EncoderError

ORIGIN = Origin("small", {"architecture": "vit_b"}, {"mine": {"n_test": 3, "centred_cosine": 0.5}}, "c0ffee")

Change = Callable[[dict[str, torch.Tensor]], None]


@pytest.fixture(scope="module")
def network() -> StudentNetwork:
    torch.manual_seed(0)
    return StudentNetwork(SIZES["small"], folded=True)


@pytest.fixture
def file(network: StudentNetwork, tmp_path: Path) -> Path:
    path = tmp_path / "student.safetensors"
    path.write_bytes(student_bytes(network, ORIGIN))
    return path


def test_what_is_written_is_read_to_half_precision(file: Path, network: StudentNetwork) -> None:
    found, origin = read_student(file)

    assert origin == ORIGIN
    assert not found.training
    for name, value in network.state_dict().items():
        assert torch.equal(found.state_dict()[name], value.half().float())


def test_the_same_weights_make_the_same_bytes(file: Path, network: StudentNetwork) -> None:
    assert student_bytes(network, ORIGIN) == file.read_bytes()
    assert student_bytes(network, Origin("small", {}, {}, "")) != file.read_bytes()


def changed(tensors: Change = lambda tensors: None, **said: object) -> Callable[[Path], None]:
    """A file whose tensors are changed, or that says something else of its origin."""

    def apply(file: Path) -> None:
        content = load_file(file)
        tensors(content)
        save_file(content, file, {FORMAT: json.dumps({**asdict(ORIGIN), **said})})

    return apply


def said(metadata: dict[str, str]) -> Callable[[Path], None]:
    return lambda file: save_file(load_file(file), file, metadata)


def truncated(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1000])


def empty(file: Path) -> None:
    file.write_bytes(b"")


def a_checkpoint(file: Path) -> None:
    torch.save({"weights": torch.zeros(3)}, file)


def drop(tensors: dict[str, torch.Tensor], name: str) -> None:
    del tensors[name]


def spoil(tensors: dict[str, torch.Tensor], name: str) -> None:
    tensors[name][..., 0] = np.nan


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (truncated, "no file of safetensors, or a damaged one"),
        (empty, "no file of safetensors"),
        (a_checkpoint, "no file of safetensors"),
        (said({}), r"holds no student: its metadata are \[\], expected 'nucseg-student-1'"),
        (said({"nucseg-student-9": "{}"}), "holds no student"),
        (said({FORMAT: "{"}), "does not say what the student was made from"),
        (said({FORMAT: "[]"}), "does not say what the student was made from"),
        (changed(colour="red"), "does not say what the student was made from"),
        (changed(teacher="vit_b"), "teacher is 'vit_b', and no table"),
        (changed(teacher={"architecture": 3}), "size, teacher and configuration are texts"),
        (changed(datasets=[]), r"datasets is \[\], and no table"),
        (changed(datasets={"mine": 3}), "mine is 3, and no table"),
        (changed(datasets={"mine": {"centred_cosine": "0.9"}}), "centred_cosine and n_test are numbers"),
        (changed(datasets={"mine": {"learned_images": [1]}}), "learned_images is a list of texts"),
        (changed(size="huge"), "'huge', known are small, medium, large"),
        (changed(size=["small"]), "size, teacher and configuration are texts"),
        (changed(size="large"), "weights missing, unknown or of another shape"),
        (changed(lambda tensors: drop(tensors, "place")), "1 weights missing.*the first is place"),
        (changed(lambda tensors: tensors.update(more=torch.zeros(1))), "1 weights missing.*the first is more"),
        (changed(lambda tensors: spoil(tensors, "place")), "1 not finite, the first is place"),
    ],
)
def test_a_file_that_is_no_whole_student_is_refused(file: Path, damage: Callable[[Path], None], told: str) -> None:
    damage(file)

    with pytest.raises(EncoderError, match=told):
        read_student(file)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match="damaged one: No such file"):
        read_student(tmp_path / "gone.safetensors")
