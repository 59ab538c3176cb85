"""The H&E images of the 2018 Data Science Bowl: one folder per image, one file per nucleus."""

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nucseg.data import DataSet, file_entries, open_dataset
from nucseg.errors import DataError

H, W = 12, 16
STAINED = np.zeros((H, W, 4), np.uint8) + np.array((210, 130, 180, 255), np.uint8)
GREY = np.zeros((H, W, 4), np.uint8) + np.array((40, 40, 40, 255), np.uint8)


def save(file: Path, values: np.ndarray) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(file)
    return file


def square(top: int, left: int, side: int = 3) -> np.ndarray:
    mask = np.zeros((H, W), np.uint8)
    mask[top : top + side, left : left + side] = 255
    return mask


def add_image(root: Path, id_: str, image: np.ndarray = STAINED, **masks: np.ndarray) -> Path:
    """An image with the masks given by name, or with one nucleus."""
    save(root / id_ / "images" / f"{id_}.png", image)
    for name, mask in (masks or {"n": square(1, 1)}).items():
        save(root / id_ / "masks" / f"{name}.png", mask)
    return root / id_


def instances(root: Path, id_: str) -> np.ndarray:
    return next(e for e in open_dataset("dsb2018", root).entries if e.id == id_).read()[0].instances


def ids(data_set: DataSet) -> list[str]:
    return [entry.id for entry in data_set.entries]


def test_nuclei_are_numbered_in_plain_string_order_of_their_files(tmp_path) -> None:
    add_image(tmp_path, "a", n10=square(0, 0), n9=square(4, 4), N2=square(8, 8))
    expected = np.zeros((H, W), np.int32)
    expected[8:11, 8:11], expected[0:3, 0:3], expected[4:7, 4:7] = 1, 2, 3

    found = instances(tmp_path, "a")

    np.testing.assert_array_equal(found, expected)
    assert found.dtype == np.int32


def test_pieces_of_a_file_are_one_nucleus_and_touching_files_are_two(tmp_path) -> None:
    pieces = square(0, 0) | square(0, 8)
    add_image(tmp_path, "a", n1=pieces, n2=square(3, 0))

    found = instances(tmp_path, "a")

    np.testing.assert_array_equal(found == 1, pieces > 0)
    np.testing.assert_array_equal(found == 2, square(3, 0) > 0)


def test_empty_masks_give_no_nucleus_and_take_no_number(tmp_path) -> None:
    add_image(tmp_path, "a", n1=np.zeros((H, W), np.uint8), n2=square(1, 1), n3=square(5, 5))

    assert np.unique(instances(tmp_path, "a")).tolist() == [0, 1, 2]


def test_the_first_of_two_overlapping_nuclei_keeps_the_pixel(tmp_path) -> None:
    add_image(tmp_path, "a", n1=square(2, 2), n2=square(3, 3))
    expected = np.zeros((H, W), np.int32)
    expected[3:6, 3:6] = 2
    expected[2:5, 2:5] = 1

    np.testing.assert_array_equal(instances(tmp_path, "a"), expected)


def test_a_completely_covered_nucleus_is_an_error(tmp_path) -> None:
    add_image(tmp_path, "a", n1=square(2, 2), n2=square(2, 5), n3=square(2, 3), n4=square(8, 8))

    with pytest.raises(
        DataError,
        match=r"masks/n3\.png is a nucleus of 9 pixels that others cover completely: n1\.png, n2\.png\. .* move",
    ):
        instances(tmp_path, "a")


def test_a_file_with_several_nuclei_is_refused(tmp_path) -> None:
    add_image(tmp_path, "a", n1=square(2, 2) // 255 + square(6, 6) // 255 * 2)

    with pytest.raises(DataError, match=r"masks/n1\.png has the values 0, 1, 2; .* one nucleus"):
        instances(tmp_path, "a")


def test_each_image_is_its_own_group(tmp_path) -> None:
    add_image(tmp_path, "b")
    add_image(tmp_path, "a")

    data_set = open_dataset("dsb2018", tmp_path)

    assert [(e.id, e.group, e.stratum, e.mpp) for e in data_set.entries] == [
        ("a", "a", "all", None),
        ("b",) * 2 + ("all", None),
    ]
    assert "Data Science Bowl 2018: 2 of the 670 released images." in data_set.notes


def test_digests_are_of_the_image_and_of_all_masks_in_their_order(tmp_path) -> None:
    single = add_image(tmp_path, "a")
    double = add_image(tmp_path, "b", n1=square(2, 2), n2=square(6, 6))
    entries = open_dataset("dsb2018", tmp_path).entries

    def sha256(*files_: Path) -> list[bytes]:
        return [hashlib.sha256(file.read_bytes()).digest() for file in files_]

    assert entries[0].digests() == (*sha256(single / "images/a.png"), *sha256(single / "masks/n.png"))
    both = hashlib.sha256(b"".join(sha256(double / "masks/n1.png", double / "masks/n2.png"))).digest()
    assert entries[1].digests() == (*sha256(double / "images/b.png"), both)
    for entry in entries:
        assert entry.read()[1:] == entry.digests()


@pytest.mark.parametrize("grey", [GREY, GREY[..., :3], GREY[..., 0]], ids=["RGBA", "RGB", "L"])
def test_grey_images_are_left_out_and_counted(tmp_path, grey) -> None:
    add_image(tmp_path, "a")
    add_image(tmp_path, "b", grey)
    add_image(tmp_path, "c", grey)

    data_set = open_dataset("dsb2018", tmp_path)

    assert ids(data_set) == ["a"]
    assert "Data Science Bowl 2018: 2 grey images left out, which are not H&E." in data_set.notes


def test_one_pixel_of_colour_is_not_grey(tmp_path) -> None:
    tinted = GREY.copy()
    tinted[5, 5, 2] += 1
    add_image(tmp_path, "a", tinted)

    assert ids(open_dataset("dsb2018", tmp_path)) == ["a"]


def test_only_grey_images_are_refused(tmp_path) -> None:
    add_image(tmp_path, "a", GREY)
    add_image(tmp_path, "b", GREY)

    with pytest.raises(DataError, match=r"All 2 images in .* are grey, .* Use the complete stage1_train"):
        open_dataset("dsb2018", tmp_path)


def test_a_damaged_image_stays_in_and_is_named_when_it_is_read(tmp_path) -> None:
    add_image(tmp_path, "a")
    file = add_image(tmp_path, "b") / "images" / "b.png"
    file.write_bytes(file.read_bytes()[:60])

    entry = open_dataset("dsb2018", tmp_path).entries[1]

    with pytest.raises(DataError, match=r"images/b\.png cannot be decoded"):
        entry.read()


@pytest.mark.parametrize("place", [".", "stage1_train", "stage1_train/stage1_train"])
def test_the_images_are_found_in_the_folder_or_inside(tmp_path, place) -> None:
    add_image(tmp_path / place, "a")
    add_image(tmp_path / place, "b")

    assert ids(open_dataset("dsb2018", tmp_path)) == ["a", "b"]


def test_stage1_test_next_to_stage1_train_is_skipped(tmp_path) -> None:
    add_image(tmp_path / "stage1_train", "a")
    save(tmp_path / "stage1_test" / "t" / "images" / "t.png", STAINED)

    assert ids(open_dataset("dsb2018", tmp_path)) == ["a"]


@pytest.mark.parametrize(
    ("removed", "fragments"),
    [
        ("*/masks", ["3 of 3", "/<id>/masks", "stage1_test has none; use stage1_train", ": a, b, c."]),
        ("*/masks/*", ["3 of 3", "/<id>/masks", ": a, b, c."]),
        ("b/masks", ["1 of 3", "have no label", "/<id>/masks", ": b."]),
        ("b/images/b.png", ["1 of 3 folders in ", "`<id>/images/<id>.png`: b.", "Copy or unpack them again"]),
        ("*/images", ["is not Data Science Bowl 2018", "<id>/images/<id>.png", "It holds a/, b/, c/."]),
        ("c/*", ["1 of 3 folders in ", ": c.", "move these folders away"]),
    ],
)
def test_an_incomplete_copy_is_refused_with_what_is_missing(tmp_path, removed, fragments) -> None:
    for id_ in "abc":
        add_image(tmp_path, id_)
    for place in list(tmp_path.glob(removed)):
        shutil.rmtree(place) if place.is_dir() else place.unlink()

    with pytest.raises(DataError) as error:
        open_dataset("dsb2018", tmp_path)

    assert [text for text in fragments if text not in str(error.value)] == []
    assert str(tmp_path) in str(error.value)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Names, number and format of stage1_train: 670 images, of which 108 in colour, and 44 masks each."""
    root = tmp_path_factory.mktemp("bowl") / "stage1_train"
    colour = save(
        root.parent / "colour.png", np.zeros((256, 320, 4), np.uint8) + np.array([200, 120, 170, 255], np.uint8)
    )
    grey = save(root.parent / "grey.png", np.zeros((256, 256, 4), np.uint8) + np.array([9, 9, 9, 255], np.uint8))
    mask = save(root.parent / "mask.png", np.zeros((256, 320), np.uint8))
    for number in range(670):
        folder = root / hashlib.sha256(str(number).encode()).hexdigest()
        for part in ("images", "masks"):
            (folder / part).mkdir(parents=True)
        (folder / "images" / f"{folder.name}.png").hardlink_to(colour if number < 108 else grey)
        for nucleus in range(44):
            (folder / "masks" / f"{hashlib.sha256(bytes([nucleus])).hexdigest()}.png").hardlink_to(mask)
    return root


def test_the_whole_release_gives_its_images_in_colour_and_decodes_each_image_once(whole, monkeypatch) -> None:
    decoded: list[Path] = []
    decode = file_entries.decode_image
    monkeypatch.setattr(
        file_entries, "decode_image", lambda data, file, *how: decoded.append(file) or decode(data, file, *how)
    )
    monkeypatch.setattr(file_entries, "decode_values", lambda data, file: pytest.fail(f"{file} was decoded"))

    data_set = open_dataset("dsb2018", whole.parent)

    assert ids(data_set) == sorted(hashlib.sha256(str(number).encode()).hexdigest() for number in range(108))
    assert data_set.notes[0] == "Data Science Bowl 2018: 562 grey images left out, which are not H&E."
    assert not any("of the 670" in note for note in data_set.notes)
    assert len(decoded) == len(set(decoded)) == 670


@pytest.mark.shared
def test_the_real_masks_are_complete_and_do_not_overlap(shared) -> None:
    root = shared / "data" / "dsb2018_he"
    data_set = open_dataset("dsb2018", root)

    assert len(data_set.entries) == 107
    assert sum(len(entry.digests()) for entry in data_set.entries) == 214
    for entry in data_set.entries[::10]:
        sample, *digests = entry.read()
        masks = [np.asarray(Image.open(file)) > 0 for file in sorted((root / entry.id / "masks").iterdir())]
        numbered = sum(number * mask.astype(np.int64) for number, mask in enumerate(masks, 1))

        assert sample.image.shape == (256, 320, 3)
        np.testing.assert_array_equal(sample.instances, numbered)
        assert tuple(digests) == entry.digests()
