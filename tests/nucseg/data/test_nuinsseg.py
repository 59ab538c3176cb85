"""NuInsSeg: the released layout, its irregularities, and real images."""

import hashlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from nucseg.data import DataSet, open_dataset
from nucseg.errors import DataError


def add_image(root: Path, organ: str, name: str, *, label: bool = True, vague: bool = False, side_px: int = 24) -> None:
    """An image as in the release, with a 16-bit label in PackBits that has the nuclei 4 and 300."""
    folder = root / organ
    labels = np.zeros((side_px, side_px), np.uint16)
    labels[2:6, 2:6], labels[10:15, 10:15] = 4, 300
    colours = np.random.default_rng(len(name)).integers(0, 256, (side_px, side_px, 3)).astype(np.uint8)
    for part in ("tissue images", "mask binary", "label masks modify", "label masks", "vague areas/mask binary"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    Image.fromarray(colours).save(folder / "tissue images" / f"{name}.png")
    Image.fromarray((labels > 0) * np.uint8(255)).save(folder / "mask binary" / f"{name}.png")
    if label:
        target = folder / "label masks modify" / f"{name}.tif"
        Image.fromarray(labels).save(target, compression="packbits")
    if vague:
        area = np.zeros((side_px, side_px), np.uint8)
        area[:, -3:] = 255
        Image.fromarray(area).save(folder / "vague areas/mask binary" / f"{name}.png")


@pytest.fixture
def release(tmp_path: Path) -> Path:
    root = tmp_path / "NuInsSeg"
    add_image(root, "human bladder", "human_bladder_02")
    add_image(root, "human bladder", "human_bladder_10", vague=True)
    add_image(root, "human tonsile", "human_tonsile_2")
    add_image(root, "human tonsile", "human_tonsile_11")
    add_image(root, "mouse fat (white and brown)_subscapula", "mouse_subscapula_01")
    return root


def ids(data_set: DataSet) -> list[str]:
    return [entry.id for entry in data_set.entries]


def test_images_are_ordered_by_organ_folder_then_file_name(release) -> None:
    assert ids(open_dataset("nuinsseg", release)) == [
        "human bladder/human_bladder_02",
        "human bladder/human_bladder_10",
        "human tonsile/human_tonsile_11",
        "human tonsile/human_tonsile_2",
        "mouse fat (white and brown)_subscapula/mouse_subscapula_01",
    ]


def test_all_images_of_an_organ_are_one_group_because_they_come_from_one_slide(release) -> None:
    entries = open_dataset("nuinsseg", release).entries

    assert {(entry.group, entry.stratum) for entry in entries[:2]} == {("human bladder", "human bladder")}
    assert {entry.mpp for entry in entries} == {None}


def test_instances_come_from_the_modified_labels_and_ignore_from_vague_areas(release) -> None:
    plain, vague = (entry.read()[0] for entry in open_dataset("nuinsseg", release).entries[:2])

    assert np.unique(plain.instances).tolist() == [0, 4, 300]
    assert plain.instances.dtype == np.int32
    assert not plain.ignore.any()
    assert vague.ignore[:, -3:].all()
    assert not vague.ignore[:, :-3].any()
    colours = np.asarray(Image.open(release / "human bladder/tissue images/human_bladder_02.png"))
    np.testing.assert_array_equal(plain.image, colours)


def test_digests_are_those_of_the_files(release) -> None:
    plain, vague = open_dataset("nuinsseg", release).entries[:2]
    folder = release / "human bladder"

    def sha256(file: str) -> bytes:
        return hashlib.sha256((folder / file).read_bytes()).digest()

    assert plain.digests() == (
        sha256("tissue images/human_bladder_02.png"),
        sha256("label masks modify/human_bladder_02.tif"),
    )
    both = sha256("label masks modify/human_bladder_10.tif") + sha256("vague areas/mask binary/human_bladder_10.png")
    assert vague.digests()[1] == hashlib.sha256(both).digest()
    for entry in (plain, vague):
        assert entry.read()[1:] == entry.digests()
        assert entry.read_image()[1] == entry.digests()[0]


def test_the_release_is_also_found_one_folder_down(release) -> None:
    (release.parent / "__MACOSX").mkdir()
    (release.parent / ".cache").mkdir()

    assert ids(open_dataset("nuinsseg", release.parent)) == ids(open_dataset("nuinsseg", release))


def test_other_files_and_folders_are_skipped(release) -> None:
    (release / "human bladder/tissue images/._human_bladder_02.png").write_bytes(b"\0\5\26\7")
    (release / "human bladder/tissue images/Thumbs.db").write_bytes(b"\0")
    (release / "notes").mkdir()

    assert len(open_dataset("nuinsseg", release).entries) == 5


def test_images_without_a_label_are_named(release) -> None:
    add_image(release, "human bladder", "human_bladder_11", label=False)
    add_image(release, "mouse spleen", "mouse_spleen_1", label=False)

    with pytest.raises(DataError) as error:
        open_dataset("nuinsseg", release)

    assert str(error.value) == (
        f"2 of 7 NuInsSeg images have no label in `{release}/<organ>/label masks modify/<name>.tif`: human bladder/"
        "human_bladder_11, mouse spleen/mouse_spleen_1. Copy or unpack the labels again, or move these images away."
    )


def test_cryonuseg_is_not_taken_for_an_organ_of_nuinsseg(tmp_path) -> None:
    folder = tmp_path / "cryonuseg" / "tissue images"
    folder.mkdir(parents=True)
    tifffile.imwrite(folder / "Human_Skin_03.tif", np.zeros((8, 8, 3), np.uint8))

    with pytest.raises(DataError, match="is not NuInsSeg"):
        open_dataset("nuinsseg", tmp_path)


def test_nothing_is_decoded_before_it_is_read(release) -> None:
    file = release / "human tonsile/tissue images/human_tonsile_2.png"
    file.write_bytes(file.read_bytes()[:100])

    damaged = open_dataset("nuinsseg", release).entries[3]

    assert damaged.digests()[0] == hashlib.sha256(file.read_bytes()).digest()
    with pytest.raises(DataError, match=r"human_tonsile_2\.png cannot be decoded"):
        damaged.read()


def test_a_deleted_file_is_named_when_it_is_read(release) -> None:
    entry = open_dataset("nuinsseg", release).entries[0]
    (release / "human bladder/label masks modify/human_bladder_02.tif").unlink()

    with pytest.raises(DataError, match=r"human_bladder_02\.tif cannot be read"):
        entry.read()
    with pytest.raises(DataError, match=r"human_bladder_02\.tif cannot be read"):
        entry.digests()


@pytest.mark.parametrize(
    "part", ["label masks modify/human_bladder_10.tif", "vague areas/mask binary/human_bladder_10.png"]
)
def test_a_mask_of_another_size_than_its_image_is_refused(release, part) -> None:
    Image.fromarray(np.zeros((24, 20), np.uint8)).save(release / "human bladder" / part)

    with pytest.raises(DataError, match=r"human_bladder_10\.\w+ is 20 x 24 pixels, but its image .* is 24 x 24"):
        open_dataset("nuinsseg", release).entries[1].read()


@pytest.mark.parametrize("left", ["no folder", "nothing", "half written"])
def test_an_organ_without_images_is_an_error(release, left) -> None:
    images = release / "human tonsile" / "tissue images"
    for image in list(images.iterdir()):
        image.rename(image.with_suffix(".png.part")) if left == "half written" else image.unlink()
    if left == "no folder":
        images.rmdir()

    with pytest.raises(DataError) as error:
        open_dataset("nuinsseg", release)

    message = f"1 of 3 organ folders in {release} have no PNG images in `<organ>/tissue images`: human tonsile. "
    assert str(error.value).startswith(message)


def test_notes_say_what_is_missing_and_name_labels_without_an_image(release) -> None:
    (release / "human tonsile/tissue images/human_tonsile_2.png").unlink()

    notes = open_dataset("nuinsseg", release).notes

    assert "4 of the 665" in " ".join(notes)
    assert "1 of 4 images have a mask of vague areas" in " ".join(notes)
    assert "NuInsSeg: labels without an image, not used: human tonsile/human_tonsile_2." in notes


ORGANS = {
    **{"human bladder": 12, "human brain": 11, "human cardia": 11, "human cerebellum": 11, "human epiglottis": 13},
    **{"human jejunum": 10, "human kidney": 11, "human liver": 40, "human lung": 13, "human melanoma": 12},
    **{"human muscle": 10, "human oesophagus": 48, "human pancreas": 44, "human peritoneum": 11, "human placenta": 40},
    **{"human pylorus": 11, "human rectum": 12, "human salivory gland": 44, "human spleen": 34, "human testis": 11},
    **{"human tongue": 40, "human tonsile": 11, "human umbilical cord": 12, "mouse femur": 6, "mouse heart": 28},
    **{"mouse fat (white and brown)_subscapula": 42, "mouse kidney": 40, "mouse liver": 36, "mouse muscle_tibia": 28},
    **{"mouse spleen": 7, "mouse thymus": 6},
}
"""The 31 folders with their unusual spellings; some of the numbers of images are guesses."""

UNPADDED = {
    *("human brain", "human cardia", "human cerebellum", "human epiglottis", "human lung", "human muscle"),
    *("human peritoneum", "human pylorus", "human rectum", "human testis", "human tonsile"),
}
PREFIXES = {"human salivory gland": "human_salivory", "mouse fat (white and brown)_subscapula": "mouse_subscapula"}


def names(organ: str) -> list[str]:
    """File stems of an organ: some have leading zeros, and one organ skips a number."""
    numbers = [number + (organ == "human rectum" and number > 8) for number in range(1, ORGANS[organ] + 1)]
    prefix = PREFIXES.get(organ, organ.replace(" ", "_"))
    return [f"{prefix}_{number}" if organ in UNPADDED else f"{prefix}_{number:02d}" for number in numbers]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All folders and names of the release; all files of a kind are the same."""
    root = tmp_path_factory.mktemp("nuinsseg")
    add_image(root / "originals", "organ", "original", vague=True, side_px=512)
    parts = {
        "tissue images": "png",
        "mask binary": "png",
        "label masks modify": "tif",
        "vague areas/mask binary": "png",
    }
    for organ in ORGANS:
        for part, suffix in parts.items():
            folder = root / "NuInsSeg" / organ / part
            folder.mkdir(parents=True)
            for name in names(organ):
                (folder / f"{name}.{suffix}").hardlink_to(root / "originals" / "organ" / part / f"original.{suffix}")
    return root / "NuInsSeg"


def test_the_whole_release_has_665_images_of_31_organs(whole) -> None:
    data_set = open_dataset("nuinsseg", whole)

    assert ids(data_set) == [f"{organ}/{name}" for organ in sorted(ORGANS) for name in sorted(names(organ))]
    assert Counter(entry.group for entry in data_set.entries) == ORGANS
    assert (len(data_set.entries), data_set.notes) == (665, ())


def test_an_image_of_the_whole_release_is_read_with_its_label_and_its_vague_area(whole) -> None:
    entry = next(e for e in open_dataset("nuinsseg", whole).entries if e.stratum.endswith("subscapula"))
    sample, *digests = entry.read()

    assert entry.id == "mouse fat (white and brown)_subscapula/mouse_subscapula_01"
    assert sample.image.shape == (512, 512, 3)
    assert np.unique(sample.instances).tolist() == [0, 4, 300]
    assert sample.ignore.sum() == 3 * 512
    assert tuple(digests) == entry.digests()


@pytest.mark.shared
def test_the_real_images_are_found_in_the_listed_order(shared) -> None:
    rows = [line.rpartition(",") for line in (shared / "data" / "nuinsseg_files.csv").read_text().splitlines()[1:]]

    found = ids(open_dataset("nuinsseg", shared / "data" / "nuinsseg"))

    assert len(found) == 124
    assert found == sorted(f"{organ}/{name}" for organ, _, name in rows)


@pytest.mark.shared
def test_the_real_labels_agree_with_the_real_binary_masks(shared) -> None:
    root = shared / "data" / "nuinsseg"
    for entry in open_dataset("nuinsseg", root).entries[::10]:
        sample, image_digest, mask_digest = entry.read()
        organ, name = entry.id.split("/")
        binary = np.asarray(Image.open(root / organ / "mask binary" / f"{name}.png")) > 0

        assert (image_digest, mask_digest) == entry.digests()
        assert sample.image.shape == (512, 512, 3)
        # they were exported separately and differ at borders between nuclei
        assert ((sample.instances > 0) == binary).mean() > 0.97
