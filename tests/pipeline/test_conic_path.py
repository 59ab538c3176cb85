"""CoNIC from its npy files to a report: a data set of its layout, cut from the shared dsb2018 images."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from nucseg.data import open_dataset
from nucseg_cache import Store
from nucseg_pipeline.cli import app

COHORTS = ("consep", "dpath", "glas")
N_IMAGES = 18
CORNERS = ((0, 0), (0, 64))
"""Two patches of 256 x 256 from an image of 256 x 320: they overlap, so a split between them would leak."""


@pytest.fixture(scope="module")
def conic(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Names, shapes and types of the release: six source images from each of three cohorts, two patches of each."""
    folder = tmp_path_factory.mktemp("conic")
    names, images, labels = [], [], []
    for number, entry in enumerate(open_dataset("dsb2018", shared / "data" / "dsb2018_he").entries[:N_IMAGES]):
        sample, *_ = entry.read()
        for index, (top, left) in enumerate(CORNERS):
            window = (slice(top, top + 256), slice(left, left + 256))
            names.append(f"{COHORTS[number % 3]}_{number // 3 + 1}-{index:04d}")
            images.append(sample.image[window])
            labels.append(np.stack([sample.instances[window], sample.instances[window] > 0], axis=-1))
    np.save(folder / "images.npy", np.stack(images).astype(np.uint8))
    np.save(folder / "labels.npy", np.stack(labels).astype(np.uint16))
    (folder / "patch_info.csv").write_text("\n".join(["patch_info", *names, ""]))
    return folder


def nucseg(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_a_data_set_of_the_layout_of_conic_goes_from_files_to_report(
    conic: Path, instant_encoder: str, tmp_path: Path
) -> None:
    cache, run, out = tmp_path / "cache", tmp_path / "run", tmp_path / "report"
    embed = ("embed", "--dataset", "conic", "--source", conic, "--cache", cache, "--encoder", instant_encoder)
    options = ("--encoder", instant_encoder, "--width", 2, "--epochs", 1, "--batch-size", 8, "--threads", 1)
    for command in (
        embed,
        ("train", "--dataset", "conic", "--cache", cache, "--run", run, *options),
        ("report", run, "--grid", "native", "--out", out),
    ):
        done = nucseg(*command)
        assert done.exit_code == 0, done.output
    summary = json.loads((out / "summary.json").read_text())
    split = json.loads((run / "split.json").read_text())

    parts = {part: {image_id.split("-")[0] for image_id in split[part]} for part in ("train", "validation", "test")}
    assert sum(len(split[part]) for part in parts) == 2 * N_IMAGES
    assert not parts["train"] & parts["test"]
    assert not parts["validation"] & (parts["train"] | parts["test"])
    # a fifth of 18 source images, rounded up, from every cohort
    assert len(parts["test"]) == 4
    assert {source.split("_")[0] for source in parts["test"]} == set(COHORTS)
    assert (summary["n_images"], summary["n_groups"], summary["grid"]) == (8, 4, "native grid")
    assert {*summary["strata"]} == set(COHORTS)
    assert any("36 of 4981" in note for note in summary["notes"])
    assert not any("group" in note and "is also in" in note for note in summary["notes"])
    assert "0 encoded" in nucseg(*embed).stdout


def test_the_native_masks_of_a_patch_are_those_of_the_file(conic: Path, tmp_path: Path) -> None:
    nucseg("embed", "--dataset", "conic", "--source", conic, "--cache", tmp_path, "--encoder", "none", "--limit", 3)
    store = Store.open(tmp_path / "conic.zarr")
    (row,) = store.read_samples([store.row_of("dpath_1-0000")])

    # 256 px are not resized: the prepared patch is the patch
    np.testing.assert_array_equal(row.instances, np.load(conic / "labels.npy")[2, ..., 0])
    np.testing.assert_array_equal(row.image, np.load(conic / "images.npy")[2])
    assert (row.group, row.stratum, row.mpp) == ("dpath_1", "dpath", 0.5)


def test_the_single_patch_of_the_shared_data_set_cannot_be_trained_on(
    shared: Path, instant_encoder: str, tmp_path: Path
) -> None:
    options = ("--dataset", "conic", "--cache", tmp_path, "--encoder", instant_encoder)
    embedded = nucseg("embed", *options, "--source", shared / "data" / "conic")
    refused = nucseg("train", *options, "--run", tmp_path / "run")

    assert embedded.exit_code == 0, embedded.output
    assert refused.exit_code == 1
    message = " ".join(refused.stderr.split())
    assert "at least two source images are needed; conic has 1 (consep_1)" in message
    assert not (tmp_path / "run").exists()
