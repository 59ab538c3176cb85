"""The shipped student: small, made by the recipe, similar to its teacher on images it was not trained on."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
import xxhash
from safetensors import safe_open

from nucseg.data import open_dataset, split
from nucseg.data.splits import SplitRow
from nucseg.encoders import open_encoder, open_recorded
from nucseg.encoders.student import shipped_student
from nucseg.encoders.student.file import read_student
from nucseg_pipeline.config import DistillConfig
from nucseg_pipeline.config.recipe import load_recipe, read_recipe, resolve
from nucseg_pipeline.runs.digests import configuration_digest


def test_the_file_is_the_one_that_the_recipe_records() -> None:
    record = read_recipe("student")["record"]
    _, origin = read_student(shipped_student())

    assert xxhash.xxh128_hexdigest(shipped_student().read_bytes()) == record["weights"]
    assert origin.teacher["weights"] == record["teacher"]
    assert origin.configuration == configuration_digest(resolve(DistillConfig, load_recipe("student", "distill"), {}))


def test_it_is_small_and_in_half_precision() -> None:
    assert shipped_student().stat().st_size <= 6_000_000
    with safe_open(shipped_student(), framework="pt") as file:
        assert {file.get_tensor(name).dtype for name in file.keys()} == {torch.float16}  # noqa: SIM118


def test_it_was_trained_on_the_training_parts_of_nuinsseg_and_dsb2018_alone(shared: Path) -> None:
    _, origin = read_student(shipped_student())
    learned = set()
    for name, folder in (("nuinsseg", "nuinsseg"), ("dsb2018", "dsb2018_he")):
        entries = sorted(open_dataset(name, shared / "data" / folder).entries, key=lambda entry: entry.id.split("/"))
        samples = [SplitRow(id=entry.id, group=entry.group, stratum=entry.stratum) for entry in entries]
        parts = split(samples, dataset=name, protocol="official", fold=0, seed=0)
        digests = {entry.id: hashlib.sha256(entry.image_file.read_bytes()).hexdigest()[:16] for entry in entries}
        record = origin.datasets[name]
        assert (record["n_train"], record["n_validation"], record["n_test"]) == tuple(
            map(len, (parts.train, parts.validation, parts.test))
        )
        assert not {digests[image_id] for image_id in parts.test} & origin.learned_images
        learned |= {digests[image_id] for image_id in (*parts.train, *parts.validation)}

    assert set(origin.datasets) == {"nuinsseg", "dsb2018"}
    assert origin.learned_images == learned


def test_it_needs_no_file_and_is_found_again() -> None:
    encoder = open_encoder("student", threads=1)

    assert open_recorded(encoder.identity, threads=1).identity == encoder.identity
    assert "imitates" in encoder.note


def test_it_distinguishes_two_frozen_sections_as_its_teacher_does(shared: Path) -> None:
    pytest.importorskip("onnxruntime")
    images = [entry.read_image()[0] for entry in open_dataset("cryonuseg", shared / "data" / "cryonuseg").entries[:2]]
    student = open_encoder("student", threads=1).encode(images)
    teacher = open_encoder(f"onnx:{shared / 'weights' / 'mobile_sam_encoder.onnx'}", threads=1).encode(images)

    # the difference of two embeddings contains nothing that all images have in common
    assert cosine(student[0] - student[1], teacher[0] - teacher[1]) > 0.3  # 0.375 measured; 0 without knowledge


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum()))
