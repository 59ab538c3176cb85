"""CryoNuSeg: the released layout with three annotators, incomplete copies, and real images."""

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import tifffile

from nucseg.data import open_dataset
from nucseg.errors import DataError

ORGANS = (
    *("AdrenalGland", "Larynx", "LymphNodes", "Mediastinum", "Pancreas"),
    *("Pleura", "Skin", "Testis", "Thymus", "ThyroidGland"),
)
NAMES = [f"Human_{organ}_{number:02d}.tif" for organ in ORGANS for number in (1, 2, 3)]
FIRST = "Annotator 1 (biologist)"
SECOND_ROUND = "Annotator 1 (biologist second round of manual marks up)"
OTHER = "Annotator 2 (bioinformatician)"
LABELS = "label masks modify"


def fill(folder: Path, values: np.ndarray) -> None:
    """The same file under all names of the release."""
    folder.mkdir(parents=True)
    tifffile.imwrite(folder / NAMES[0], values)
    for name in NAMES[1:]:
        (folder / name).hardlink_to(folder / NAMES[0])


def fill_labels(folder: Path, id_: int) -> None:
    labels = np.zeros((512, 512), np.uint16)
    labels[20:30, 20:30] = id_
    fill(folder, labels)


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """The whole release: the nucleus of each annotator has a different id, 1, 2 or 3."""
    root = tmp_path / "CryoNuSeg"
    fill(root / "tissue images", np.full((512, 512, 3), (200, 120, 170), np.uint8))
    fill_labels(root / FIRST / LABELS, 1)
    fill_labels(root / SECOND_ROUND / SECOND_ROUND / LABELS, 2)
    fill_labels(root / OTHER / OTHER / LABELS, 3)
    (root / FIRST / "mask binary").mkdir()
    return root


def test_the_whole_release_has_three_images_of_each_of_ten_organs(release) -> None:
    data_set = open_dataset("cryonuseg", release)

    assert [entry.id for entry in data_set.entries] == sorted(name.removesuffix(".tif") for name in NAMES)
    assert Counter(entry.stratum for entry in data_set.entries) == dict.fromkeys(ORGANS, 3)
    assert all(entry.group == entry.id and entry.mpp is None for entry in data_set.entries)
    assert data_set.notes == (f"CryoNuSeg: labels of {FIRST}, first round; those of others are not used.",)


def test_instances_are_those_of_annotator_1_in_the_first_round(release) -> None:
    sample, *digests = open_dataset("cryonuseg", release).entries[7].read()

    assert np.unique(sample.instances).tolist() == [0, 1]
    assert (sample.instances.shape, sample.image.shape) == ((512, 512), (512, 512, 3))
    assert tuple(digests) == open_dataset("cryonuseg", release).entries[7].digests()


def test_the_folder_of_annotator_1_may_be_nested_like_the_others(release) -> None:
    (release / FIRST).rename(release / "moving")
    (release / FIRST).mkdir()
    (release / "moving").rename(release / FIRST / FIRST)

    entry = open_dataset("cryonuseg", release).entries[0]

    assert entry.read()[0].instances.max() == 1


def test_old_releases_have_the_labels_next_to_the_images(release) -> None:
    (release / FIRST / LABELS).rename(release / LABELS)
    for annotator in (FIRST, SECOND_ROUND, OTHER):
        shutil.rmtree(release / annotator)

    data_set = open_dataset("cryonuseg", release)

    assert data_set.entries[0].read()[0].instances.max() == 1
    assert any("next to the images, as in old releases" in note for note in data_set.notes)


def move_labels_beside_images(root: Path) -> None:
    (root / FIRST / LABELS).rename(root / LABELS)  # their annotator is then unknown


def undouble_others(root: Path) -> None:
    for annotator in (SECOND_ROUND, OTHER):
        (root / annotator / annotator / LABELS).rename(root / annotator / LABELS)


@pytest.mark.parametrize("arrange", [lambda root: None, move_labels_beside_images, undouble_others])
def test_labels_of_other_annotators_are_never_used(release, arrange) -> None:
    arrange(release)
    shutil.rmtree(release / FIRST)

    with pytest.raises(DataError) as error:
        open_dataset("cryonuseg", release)

    assert f"{release / FIRST / LABELS} does not exist" in str(error.value)
    assert f"There are only labels of other annotators, {SECOND_ROUND}, {OTHER}, which are not used" in str(error.value)


@pytest.mark.parametrize(
    ("removed", "fragments"),
    [
        (["tissue images"], [" is not CryoNuSeg", "tissue images/Human_<Organ>_<NN>.tif", f"{FIRST}/, "]),
        (["tissue images/*"], ["No TIFF images in ", "/tissue images, which holds nothing.", "again"]),
        ([f"{FIRST}/{LABELS}"], [f"{FIRST}/{LABELS} does not exist", f"{FIRST} holds mask binary/.", "again"]),
        (["Annotator*"], [f"{FIRST}/{LABELS} does not exist", "CryoNuSeg holds tissue images/."]),
        (
            [f"{FIRST}/{LABELS}/Human_Skin_02.tif"],
            ["1 of 30 CryoNuSeg images have no label", f"{FIRST}/{LABELS}/<name>.tif", "Human_Skin_02"],
        ),
        (
            [f"{FIRST}/{LABELS}/{name}" for name in NAMES[10:]],
            ["20 of 30", "Human_Mediastinum_02", " and 15 more", "Copy or unpack the labels again"],
        ),
    ],
)
def test_an_incomplete_copy_is_refused_with_what_is_missing(release, removed, fragments) -> None:
    for place in [place for pattern in removed for place in release.glob(pattern)]:
        shutil.rmtree(place) if place.is_dir() else place.unlink()

    with pytest.raises(DataError) as error:
        open_dataset("cryonuseg", release)

    assert [text for text in fragments if text not in str(error.value)] == []
    assert str(release) in str(error.value)


def test_images_of_other_names_are_refused(release) -> None:
    for name in ("Human_Skin_02.tif", "Human_Larynx_01.tif"):
        (release / "tissue images" / name).rename(release / "tissue images" / name.removeprefix("Human_"))

    message = r"2 of 30 images in .*/tissue images are not named Human_<Organ>_<number>\.tif: Larynx_01\.tif, Skin_02"
    with pytest.raises(DataError, match=message):
        open_dataset("cryonuseg", release)


def test_notes_say_that_images_are_missing_and_name_labels_without_one(release) -> None:
    for name in NAMES[4:]:
        (release / "tissue images" / name).unlink()

    notes = open_dataset("cryonuseg", release).notes

    assert "CryoNuSeg: 4 of the 30 released images." in notes
    assert any("without an image" in note and note.endswith("and 21 more.") for note in notes)


def test_nuinsseg_is_not_taken_for_it(tmp_path) -> None:
    for organ in ("human bladder", "human brain"):
        (tmp_path / organ / "tissue images").mkdir(parents=True)
        (tmp_path / organ / "tissue images" / "human_1.png").write_bytes(b"")

    with pytest.raises(DataError, match="is not CryoNuSeg"):
        open_dataset("cryonuseg", tmp_path)


@pytest.mark.shared
def test_the_real_images_and_labels_are_read_unchanged(shared) -> None:
    root = shared / "data" / "cryonuseg"
    data_set = open_dataset("cryonuseg", root)

    assert [entry.stratum for entry in data_set.entries] == ["AdrenalGland", "LymphNodes", "Pancreas", "Skin", "Thymus"]
    for entry in data_set.entries:
        sample, *digests = entry.read()
        np.testing.assert_array_equal(sample.image, tifffile.imread(root / "tissue images" / f"{entry.id}.tif"))
        np.testing.assert_array_equal(sample.instances, tifffile.imread(root / FIRST / LABELS / f"{entry.id}.tif"))
        assert np.count_nonzero(np.unique(sample.instances)) > 20
        assert tuple(digests) == entry.digests()
