"""Any folder with images/ and masks/."""

import hashlib
import json
import os
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nucseg.data import open_dataset
from nucseg.errors import ConfigError, DataError

PINK = np.full((10, 12, 3), (230, 150, 190), np.uint8)


def save(file: Path, values: np.ndarray) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(file)


def two_nuclei(value: int = 255) -> np.ndarray:
    values = np.zeros((10, 12), np.uint8)
    values[1:3, 1:3] = values[6:9, 6:9] = value
    return values


@pytest.fixture
def source(tmp_path: Path) -> Path:
    for name in ("b.png", "a.tif", "c.JPG"):
        save(tmp_path / "images" / name, PINK)
    save(tmp_path / "masks" / "a.png", two_nuclei())
    save(tmp_path / "masks" / "b.tif", np.where(np.arange(12) < 5, 3, 7).astype(np.uint16) * (two_nuclei(1) > 0))
    save(tmp_path / "masks" / "c.png", two_nuclei(1))
    return tmp_path


def test_each_image_is_its_own_group_in_one_stratum(source) -> None:
    data_set = open_dataset("folder", source)

    assert [(entry.id, entry.group, entry.stratum, entry.mpp) for entry in data_set.entries] == [
        ("a", "a", "all", None),
        ("b", "b", "all", None),
        ("c", "c", "all", None),
    ]
    assert any("its own group" in note for note in data_set.notes)


def test_binary_masks_are_numbered_and_instance_maps_are_kept(source) -> None:
    a, b, c = (entry.read()[0] for entry in open_dataset("folder", source).entries)

    assert [np.unique(sample.instances).tolist() for sample in (a, b, c)] == [[0, 1, 2], [0, 3, 7], [0, 1, 2]]


def test_subfolders_are_groups_and_strata(tmp_path) -> None:
    for group in ("patient 2", "patient 10"):
        save(tmp_path / "images" / group / "1.png", PINK)
        save(tmp_path / "masks" / group / "1.png", two_nuclei())

    data_set = open_dataset("folder", tmp_path)

    assert [(entry.id, entry.group, entry.stratum) for entry in data_set.entries] == [
        ("patient 10/1", "patient 10", "patient 10"),
        ("patient 2/1", "patient 2", "patient 2"),
    ]
    assert not any("its own group" in note for note in data_set.notes)


def test_the_ignore_mask_is_read_and_part_of_the_mask_digest(source) -> None:
    before = open_dataset("folder", source).entries[1].digests()
    area = np.zeros((10, 12), np.uint8)
    area[0] = 1
    save(source / "ignore" / "b.png", area)

    entry = open_dataset("folder", source).entries[1]
    sample, image_digest, mask_digest = entry.read()

    np.testing.assert_array_equal(sample.ignore, area > 0)
    assert image_digest == before[0]
    parts = [hashlib.sha256((source / file).read_bytes()).digest() for file in ("masks/b.tif", "ignore/b.png")]
    assert mask_digest == entry.digests()[1] == hashlib.sha256(b"".join(parts)).digest() != before[1]


def test_images_without_a_mask_are_named_and_counted(source) -> None:
    for number in range(8):
        save(source / "images" / f"x{number}.png", PINK)

    listed, found = (
        r"8 of 11 images .* no mask .*: x0\.png, x1\.png.* and 3 more",
        r"It holds .*\.png.*; read are \.png",
    )
    with pytest.raises(DataError, match=rf"{listed}\. {found}"):
        open_dataset("folder", source)


def test_masks_without_an_image_are_in_a_note(source) -> None:
    save(source / "masks" / "spare.png", two_nuclei())

    assert "Masks without an image, not used: 1 (spare.png)." in open_dataset("folder", source).notes


@pytest.mark.parametrize("name", ["typo.png", "patient/a.png"])
def test_masks_of_ignored_areas_without_an_image_are_in_a_note(source, name) -> None:
    save(source / "ignore" / "a.png", two_nuclei())
    save(source / "ignore" / name, two_nuclei())

    notes = [note for note in open_dataset("folder", source).notes if "not used" in note]

    assert notes == [f"Masks of ignored areas without an image, not used: 1 ({Path(name)})."]


@pytest.mark.parametrize("masks", [("a.png.png", "a.tif.png"), ("a.png", "a.tif"), ("a.png", "a.tif.png")])
def test_images_that_differ_only_in_their_suffix_keep_it_in_their_names(source, masks) -> None:
    save(source / "images" / "a.png", PINK)
    (source / "masks" / "a.png").unlink()
    for file, mask in zip(masks, (two_nuclei(), two_nuclei() * 0), strict=True):
        save(source / "masks" / file, mask)

    entries = open_dataset("folder", source).entries

    assert [entry.id for entry in entries] == ["a.png", "a.tif", "b", "c"]
    assert [entry.read()[0].instances.max() for entry in entries[:2]] == [2, 0]


def test_one_mask_does_not_serve_two_images(source) -> None:
    save(source / "images" / "a.jpg", PINK)
    (source / "masks" / "a.png").rename(source / "masks" / "a.bmp")

    with pytest.raises(
        DataError, match=r"2 of 4 images .* no mask .*: a\.jpg, a\.tif\. .* need masks like a\.jpg\.png"
    ):
        open_dataset("folder", source)


@pytest.mark.parametrize("name", ["a.bmp", "a.tif.png", "a.geojson"])
def test_two_masks_for_an_image_are_refused(source, name) -> None:
    (source / "masks" / name).write_bytes(b"")

    with pytest.raises(DataError, match=r"a\.[a-z.]+ and a\.[a-z.]+ have the same name: .* the mask of a\.tif"):
        open_dataset("folder", source)


def test_a_mask_that_could_belong_to_two_images_is_refused(source) -> None:
    save(source / "images" / "a.tif.png", PINK)
    (source / "masks" / "a.png").rename(source / "masks" / "a.tif.png")

    with pytest.raises(DataError, match=r"a\.tif\.png could be the mask of a\.tif, a\.tif\.png"):
        open_dataset("folder", source)


def test_files_of_other_formats_are_counted_and_hidden_ones_are_not(source) -> None:
    assert not any("not read" in note for note in open_dataset("folder", source).notes)
    for name in ("images/a.gif", "images/b.GIF", "images/Thumbs.db", "masks/notes", "masks/.DS_Store"):
        (source / name).write_bytes(b"x")

    images, masks = (note for note in open_dataset("folder", source).notes if "not read" in note)

    assert "3 in images (.db: 1, .gif: 2). " in images
    assert "geojson" not in images
    assert "1 in masks (no suffix: 1). " in masks
    assert "geojson" in masks


def test_bitmaps_and_webp_are_images(source) -> None:
    save(source / "images" / "d.bmp", PINK)
    Image.fromarray(PINK).save(source / "images" / "e.webp", lossless=True)
    for name in ("d.bmp", "e.png"):
        save(source / "masks" / name, two_nuclei())

    for entry in open_dataset("folder", source).entries[-2:]:
        sample = entry.read()[0]
        np.testing.assert_array_equal(sample.image, PINK)
        assert sample.instances.max() == 2


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        (["pictures"], "holds the folders pictures; expected `images/` and `masks/`"),
        (["images", "masks"], "has no images in"),
    ],
)
def test_a_folder_of_another_layout_or_without_images_is_refused(tmp_path, folders, message) -> None:
    for name in folders:
        (tmp_path / name).mkdir()

    with pytest.raises(DataError, match=message):
        open_dataset("folder", tmp_path)


def test_images_and_subfolders_together_are_refused(source) -> None:
    save(source / "images" / "patient" / "1.png", PINK)

    with pytest.raises(DataError, match="3 images and also the subfolders patient"):
        open_dataset("folder", source)


def test_images_two_levels_deep_are_an_error(tmp_path) -> None:
    save(tmp_path / "images" / "patient" / "slide" / "1.png", PINK)
    (tmp_path / "masks").mkdir()

    with pytest.raises(DataError, match="No images directly in patient"):
        open_dataset("folder", tmp_path)


def square(x: int, y: int, side: int) -> list[list[int]]:
    return [[x, y], [x + side, y], [x + side, y + side], [x, y + side], [x, y]]


def geojson(*squares: tuple[int, int, int]) -> str:
    features = [
        {
            "type": "Feature",
            "geometry": {"type": "Polygon", "coordinates": [square(*place)]},
            "properties": {"classification": {"name": "Tumor"}},
        }
        for place in squares
    ]
    return json.dumps({"type": "FeatureCollection", "features": features})


def coco(**squares: tuple[int, int, int] | None) -> str:
    """A COCO file of images called like the arguments, with "/" for "__", each with one square or none."""
    images = [
        {"id": number, "file_name": f"{name.replace('__', '/')}.png", "height": 10, "width": 12}
        for number, name in enumerate(squares)
    ]
    annotations = [
        {"id": number, "image_id": number, "category_id": 3, "segmentation": [np.ravel(square(*place)).tolist()]}
        for number, place in enumerate(squares.values())
        if place
    ]
    return json.dumps({"images": images, "annotations": annotations, "categories": [{"id": 3, "name": "Tumor"}]})


@pytest.mark.parametrize("name", ["b.geojson", "b.png.geojson", "b.json"])
def test_outlines_are_read_as_masks(source, name) -> None:
    (source / "masks" / "b.tif").unlink()
    (source / "masks" / name).write_text(geojson((1, 1, 3), (5, 5, 3)))

    entry = open_dataset("folder", source).entries[1]
    sample, _, digest = entry.read()

    expected = np.zeros((10, 12), int)
    expected[1:4, 1:4], expected[5:8, 5:8] = 1, 2
    np.testing.assert_array_equal(sample.instances, expected)
    assert digest == entry.digests()[1] == hashlib.sha256((source / "masks" / name).read_bytes()).digest()
    assert sample.mask_facts.classes == {"Tumor": 2}


def test_outlines_of_ignored_areas_are_read(source) -> None:
    (source / "ignore").mkdir()
    (source / "ignore" / "b.geojson").write_text(geojson((1, 1, 3)))

    sample = open_dataset("folder", source).entries[1].read()[0]

    expected = np.zeros((10, 12), np.bool_)
    expected[1:4, 1:4] = True
    np.testing.assert_array_equal(sample.ignore, expected)


@pytest.mark.parametrize("place", ["masks.json", "masks/annotations.json"])
def test_a_coco_file_can_hold_the_masks_of_all_images(source, place) -> None:
    for mask in (source / "masks").iterdir():
        mask.unlink()
    (source / "masks" if place == "masks.json" else source / "ignore").mkdir(exist_ok=True)
    (source / place).write_text(coco(a=(1, 1, 2), b=(4, 4, 3), c=None, gone=None))

    data_set = open_dataset("folder", source)
    samples = [entry.read() for entry in data_set.entries]

    assert [np.count_nonzero(sample.instances) for sample, _, _ in samples] == [4, 9, 0]
    assert [entry.digests()[1] for entry in data_set.entries] == [digest for _, _, digest in samples]
    assert any("1 of the 4 images that" in note and "gone.png" in note for note in data_set.notes)
    before = [digest for _, _, digest in samples]
    (source / place).write_text(coco(a=(1, 1, 2), b=(4, 4, 2), c=None))
    after = [entry.digests()[1] for entry in open_dataset("folder", source).entries]
    assert [digest == other for digest, other in zip(before, after, strict=True)] == [True, False, True]


def test_masks_json_needs_no_folder_of_masks(tmp_path) -> None:
    for group in ("p1", "p2"):
        save(tmp_path / "images" / group / "1.png", PINK)
    (tmp_path / "masks.json").write_text(coco(p2__1=(0, 0, 3), p1__1=(0, 0, 2)))

    samples = [entry.read()[0] for entry in open_dataset("folder", tmp_path).entries]

    assert [(sample.id, np.count_nonzero(sample.instances)) for sample in samples] == [("p1/1", 4), ("p2/1", 9)]
    (tmp_path / "masks.json").write_text(json.dumps(json.loads(coco(p2__1=None, p1__1=None)) | {"annotations": [{}]}))
    with pytest.raises(DataError, match=r"masks\.json: annotation None has no image_id"):
        open_dataset("folder", tmp_path)


def test_a_file_name_of_two_patients_is_refused(tmp_path) -> None:
    for group in ("p1", "p2"):
        save(tmp_path / "images" / group / "1.png", PINK)
    (tmp_path / "masks.json").write_text(coco(**{"1": (0, 0, 3)}))

    with pytest.raises(DataError, match=r"masks\.json: the file_name 1\.png could be any of .*p1/1\.png"):
        open_dataset("folder", tmp_path)


def test_a_file_name_of_another_patient_is_not_taken_for_this_one(tmp_path) -> None:
    save(tmp_path / "images" / "p1" / "1.png", PINK)
    (tmp_path / "masks.json").write_text(coco(p3__1=(0, 0, 3)))

    with pytest.raises(DataError, match=r"1 of 1 images .* no mask .*: p1/1\.png"):
        open_dataset("folder", tmp_path)


def test_a_file_name_may_have_other_folders_and_another_suffix(source) -> None:
    (source / "masks" / "b.tif").unlink()
    (source / "masks.json").write_text(coco(train2017__b=(0, 0, 3)).replace("b.png", "b.jpg"))

    assert open_dataset("folder", source).entries[1].read()[0].instances.max() == 1


@pytest.mark.parametrize("others", [("p1__\u00e9", "p2__\u00e9"), ("p1__e\u0301", "p2__x"), ("train\\p1\\\u00e9", "x")])
@pytest.mark.parametrize("file", ["masks.json", "masks/p1/\u00e9.json"])
def test_an_image_is_found_alike_in_all_coco_files(tmp_path, file, others) -> None:
    save(tmp_path / "images" / "p1" / "\u00e9.png", PINK)
    (tmp_path / "masks" / "p1").mkdir(parents=True)
    (tmp_path / file).write_text(coco(**dict.fromkeys(others, (0, 0, 3))))

    assert np.count_nonzero(open_dataset("folder", tmp_path).entries[0].read()[0].instances) == 9


def test_a_mask_and_a_part_of_a_coco_file_is_refused(source) -> None:
    (source / "masks.json").write_text(coco(a=(1, 1, 2)))

    with pytest.raises(DataError, match=r"a\.tif has two masks: .*a\.png, and a part of .*masks\.json"):
        open_dataset("folder", source)


def test_an_image_described_twice_is_refused(source) -> None:
    (source / "masks" / "a.png").unlink()
    for name in ("masks.json", "masks/more.json"):
        (source / name).write_text(coco(a=(1, 1, 2)))

    with pytest.raises(DataError, match=r"a\.tif is described twice, in .*more\.json and .*masks\.json"):
        open_dataset("folder", source)


def test_other_json_is_a_mask_without_an_image(source) -> None:
    (source / "masks" / "dataset.json").write_text('{"labels": {"nucleus": 1}}')

    assert "Masks without an image, not used: 1 (dataset.json)." in open_dataset("folder", source).notes


def a_pipe(file: Path) -> None:
    os.mkfifo(file)


def an_endless_device(file: Path) -> None:
    file.symlink_to("/dev/zero")


@pytest.mark.timeout(20)
@pytest.mark.parametrize("make", [a_pipe, an_endless_device])
@pytest.mark.parametrize("name", ["images/b.png", "masks/b.tif"])
def test_a_pipe_or_a_device_is_refused_without_blocking(source, name, make) -> None:
    (source / name).unlink()
    make(source / name)
    _, b, _ = open_dataset("folder", source).entries

    for access in (b.digests, b.read):
        with pytest.raises(DataError, match=rf"{name}.*pipe or a device"):
            access()


def test_a_file_that_is_too_large_is_not_read(source) -> None:
    with (source / "images" / "b.png").open("r+b") as stream:
        stream.truncate(1 << 40)

    with pytest.raises(DataError, match=r"b\.png has 1,099,511,627,776 bytes"):
        open_dataset("folder", source).entries[1].read_image()


@pytest.mark.parametrize("image", ["NFC", "NFD"])
@pytest.mark.parametrize("mask", ["NFC", "NFD"])
@pytest.mark.parametrize("name", ["Größe", "Größe/ä"])
def test_names_match_in_both_unicode_forms(tmp_path, image, mask, name) -> None:
    save(tmp_path / "images" / f"{unicodedata.normalize(image, name)}.png", PINK)
    save(tmp_path / "masks" / f"{unicodedata.normalize(mask, name)}.png", two_nuclei(7))

    (entry,) = open_dataset("folder", tmp_path).entries

    assert entry.id == unicodedata.normalize("NFC", name)
    assert entry.read()[0].instances.max() == 2


@pytest.mark.parametrize("kind", ["images", "masks"])
@pytest.mark.parametrize("where", ["{}.png", "{}/a.png"])
def test_two_unicode_forms_of_one_name_are_refused(tmp_path, kind, where) -> None:
    for form in ("NFC", "NFD"):
        save(tmp_path / kind / where.format(unicodedata.normalize(form, "é")), two_nuclei())
    other = "masks" if kind == "images" else "images"
    save(tmp_path / other / where.format("é"), two_nuclei())

    with pytest.raises(DataError, match="have the same name"):
        open_dataset("folder", tmp_path)


@pytest.mark.parametrize("name", ["a\nb", "a\tb", "a\x1b[31mb", os.fsdecode(b"a\xff")])
def test_names_that_are_not_plain_text_are_refused(source, name) -> None:
    (source / "images" / "b.png").rename(source / "images" / f"{name}.png")

    with pytest.raises(DataError, match="Rename it"):
        open_dataset("folder", source)


def test_other_files_may_have_any_name(source) -> None:
    (source / "images" / "Icon\r").write_bytes(b"")
    (source / "images" / os.fsdecode(b"n\xf6tes.txt")).write_bytes(b"")

    assert len(open_dataset("folder", source).entries) == 3


def test_a_source_whose_path_is_not_utf_8_is_refused(source) -> None:
    moved = source.rename(source.with_name(os.fsdecode(b"a\xff")))

    with pytest.raises(DataError, match="UTF-8"):
        open_dataset("folder", moved)
    with pytest.raises(ConfigError, match="full path"):
        open_dataset("folder", Path("~nobody-of-that-name/x"))


def test_a_folder_that_cannot_be_listed_is_named(tmp_path, monkeypatch) -> None:
    def refuse(folder: Path) -> None:
        raise PermissionError(13, "Permission denied")

    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(DataError, match=r"cannot be listed: Permission denied\. Fix this, or choose another folder"):
        open_dataset("folder", tmp_path)
