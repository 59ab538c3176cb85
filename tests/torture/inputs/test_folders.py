"""Folders that are no data set, half of one, or one of another layout."""

import csv
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

FAULT = "data set in the wrong layout, or half there"


def save(file: Path, values: np.ndarray) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(file)


def as_nuinsseg(place: Path, draw: Any) -> None:
    for number in (1, 2):
        save(place / "human liver" / "tissue images" / f"human_liver_{number}.png", draw.picture(number))
        save(place / "human liver" / "label masks modify" / f"human_liver_{number}.tif", draw.nuclei())


def as_cryonuseg(place: Path, draw: Any) -> None:
    for number in (1, 2):
        save(place / "tissue images" / f"Human_Skin_0{number}.tif", draw.picture(number))
        labels = place / "Annotator 1 (biologist)" / "label masks modify"
        save(labels / f"Human_Skin_0{number}.tif", draw.nuclei())


def as_conic(place: Path, draw: Any) -> None:
    place.mkdir(parents=True, exist_ok=True)
    np.save(place / "images.npy", np.stack([draw.picture(1), draw.picture(2)]))
    labels = np.stack([draw.nuclei(), draw.nuclei() * 0 + 1], axis=-1)
    np.save(place / "labels.npy", np.stack([labels, labels]))
    (place / "patch_info.csv").write_text("patch_info\nconsep_1-0000\nconsep_2-0000\n")


def as_dsb2018(place: Path, draw: Any) -> None:
    for number in (1, 2):
        name = f"{number:064x}"
        save(place / name / "images" / f"{name}.png", draw.picture(number))
        for nucleus in (1, 2, 3):
            save(place / name / "masks" / f"{nucleus}.png", ((draw.nuclei() == nucleus) * 255).astype(np.uint8))


def as_folder(place: Path, draw: Any) -> None:
    for number in (1, 2):
        save(place / "images" / f"{number}.png", draw.picture(number))
        save(place / "masks" / f"{number}.png", draw.nuclei())


LAYOUTS: dict[str, Callable[[Path, Any], None]] = {
    "nuinsseg": as_nuinsseg,
    "cryonuseg": as_cryonuseg,
    "conic": as_conic,
    "dsb2018": as_dsb2018,
    "folder": as_folder,
}


def embed(trial: Any, dataset: str) -> tuple[Path, list[object]]:
    place = trial.fresh()
    source = place / "source"
    named = ["--dataset", dataset, "--source", source, "--cache", place / "cache"]
    return source, ["embed", *named, "--encoder", "none"]


def images_of(source: Path, dataset: str) -> Callable[[Any], str]:
    def right(_: Any) -> str:
        from nucseg_cache import Store

        store = Store.open(source.parent / "cache" / f"{dataset}.zarr")
        nuclei = [len(np.unique(sample.instances)) - 1 for sample in store.read_samples(range(store.n_rows))]
        return "" if nuclei == [3, 3] else f"nuclei {nuclei}"

    return right


def test_each_layout_given_to_each_reader(trial: Any, some_of: Any, draw: Any) -> None:
    pairs = {f"{laid} as {asked}": (laid, asked) for laid in LAYOUTS for asked in LAYOUTS}
    for case, (laid, asked) in some_of(pairs, 4).items():
        source, command = embed(trial, asked)
        LAYOUTS[laid](source, draw)
        right = images_of(source, asked) if laid == asked else None
        trial(FAULT, case, command, naming=[str(source)], right=right, untouched=source)
        assert laid == asked or not (source.parent / "cache").exists()


def emptied(folder: str) -> Callable[[Path], None]:
    def change(place: Path) -> None:
        (found,) = place.rglob(folder)
        shutil.rmtree(found)
        found.mkdir()

    return change


def without(name: str) -> Callable[[Path], None]:
    def change(place: Path) -> None:
        found = sorted(place.rglob(name))[0]
        shutil.rmtree(found) if found.is_dir() else found.unlink()

    return change


def file_for(name: str) -> Callable[[Path], None]:
    def change(place: Path) -> None:
        without(name)(place)
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text("a file")

    return change


def twice(place: Path) -> None:
    shutil.copytree(place, place.parent / "copy")
    shutil.rmtree(place)
    place.mkdir()
    for name in ("one", "two"):
        shutil.copytree(place.parent / "copy", place / name)
    shutil.rmtree(place.parent / "copy")


def array(name: str, values: Any) -> Callable[[Path], None]:
    return lambda place: np.save(place / name, values, allow_pickle=True)


def text(name: str, content: bytes) -> Callable[[Path], None]:
    def change(place: Path) -> None:
        (place / name).write_bytes(content)

    return change


def cut(name: str) -> Callable[[Path], None]:
    def change(place: Path) -> None:
        content = (place / name).read_bytes()
        (place / name).write_bytes(content[: len(content) // 2])

    return change


def table(*names: str, column: str = "patch_info") -> bytes:
    return "\n".join([column, *names, ""]).encode()


IMAGES, LABELS, INFO = "images.npy", "labels.npy", "patch_info.csv"
HUGE = b"\x93NUMPY\x01\x00v\x00{'descr': '|u1', 'fortran_order': False, 'shape': (99999999999, 256, 256, 3), }"
CODE = b"\x93NUMPY\x01\x00v\x00{'descr': __import__('os').system('touch pwned'), 'shape': (1,)}".ljust(128) + b"\n"

BROKEN: dict[str, tuple[str, Callable[[Path], None], list[str]]] = {
    "conic without labels": ("conic", without(LABELS), [LABELS]),
    "conic without images": ("conic", without(IMAGES), [IMAGES]),
    "conic without its table": ("conic", without(INFO), [INFO]),
    "conic with images cut short": ("conic", cut(IMAGES), [IMAGES]),
    "conic with labels cut short": ("conic", cut(LABELS), [LABELS]),
    "conic with images of floats": ("conic", array(IMAGES, np.zeros((2, 256, 256, 3))), [IMAGES]),
    "conic with images of 16 bits": ("conic", array(IMAGES, np.zeros((2, 256, 256, 3), np.uint16)), [IMAGES]),
    "conic with gray images": ("conic", array(IMAGES, np.zeros((2, 256, 256), np.uint8)), [IMAGES]),
    "conic with one image alone": ("conic", array(IMAGES, np.zeros((256, 256, 3), np.uint8)), [IMAGES]),
    "conic with channels first": ("conic", array(IMAGES, np.zeros((2, 3, 256, 256), np.uint8)), [IMAGES]),
    "conic with a number for images": ("conic", array(IMAGES, np.uint8(3)), [IMAGES]),
    "conic with no images": ("conic", array(IMAGES, np.zeros((0, 256, 256, 3), np.uint8)), [IMAGES, "source"]),
    "conic with pickled images": ("conic", array(IMAGES, np.array([{"a": 1}, None], object)), [IMAGES]),
    "conic with pickled labels": ("conic", array(LABELS, np.array([print, None], object)), [LABELS]),
    "conic with records": ("conic", array(LABELS, np.zeros(2, [("a", "i4"), ("b", "i4")])), [LABELS]),
    "conic with labels of floats": ("conic", array(LABELS, np.zeros((2, 256, 256, 2), np.float32)), [LABELS]),
    "conic with one channel of labels": ("conic", array(LABELS, np.zeros((2, 256, 256), np.uint16)), [LABELS]),
    "conic with negative labels": ("conic", array(LABELS, np.full((2, 256, 256, 2), -3, np.int16)), [LABELS]),
    "conic with more labels": ("conic", array(LABELS, np.zeros((3, 256, 256, 2), np.uint16)), [LABELS]),
    "conic with text for images": ("conic", text(IMAGES, b"not an array"), [IMAGES]),
    "conic with an empty file": ("conic", text(LABELS, b""), [LABELS]),
    "conic with a header that lies": ("conic", text(IMAGES, HUGE.ljust(128) + b"\n" + bytes(999)), [IMAGES]),
    "conic with code in a header": ("conic", text(IMAGES, CODE), [IMAGES]),
    "conic with a pickle": ("conic", text(IMAGES, b"\x80\x04cos\nsystem\n(S'touch pwned'\ntR."), [IMAGES]),
    "conic with a short table": ("conic", text(INFO, table("consep_1-0000")), [INFO]),
    "conic with an empty table": ("conic", text(INFO, b""), [INFO]),
    "conic with another column": ("conic", text(INFO, table("a_1-0", "a_2-0", column="name")), [INFO]),
    "conic with a name twice": ("conic", text(INFO, table("a_1-0000", "a_1-0000")), [INFO]),
    "conic with malformed names": ("conic", text(INFO, table("a", "b")), [INFO]),
    "conic with paths as names": ("conic", text(INFO, table("../../a_1-0", "/etc/b_2-0")), [INFO]),
    "conic with control characters": ("conic", text(INFO, table("a\x1b[2J_1-0", "b_2-0")), [INFO]),
    "conic with lines in its names": ("conic", text(INFO, table('"a_\n1-0"', "b_2-0")), [INFO]),
    "conic with NUL in its table": ("conic", text(INFO, b"patch_info\na_1-0\0\nb_2-0\n"), [INFO]),
    "conic with a table in UTF-16": ("conic", text(INFO, table("a_1-0", "b_2-0").decode().encode("utf-16")), [INFO]),
    "conic with a binary table": ("conic", text(INFO, bytes(range(256))), [INFO]),
    "conic with a huge field": ("conic", text(INFO, b"patch_info\n" + b"a" * (csv.field_size_limit() + 1)), [INFO]),
    "conic with folders of those names": ("conic", file_for(IMAGES), [IMAGES]),
    "nuinsseg without labels": ("nuinsseg", without("label masks modify"), ["source"]),
    "nuinsseg without a label": ("nuinsseg", without("human_liver_2.tif"), ["human_liver_2"]),
    "nuinsseg with empty images": ("nuinsseg", emptied("tissue images"), ["source"]),
    "nuinsseg twice": ("nuinsseg", twice, ["one", "two"]),
    "cryonuseg without labels": ("cryonuseg", without("Annotator 1 (biologist)"), ["Annotator 1"]),
    "cryonuseg without a label": ("cryonuseg", without("*abel masks modify/Human_Skin_02.tif"), ["Human_Skin_02"]),
    "cryonuseg with empty images": ("cryonuseg", emptied("tissue images"), ["tissue images"]),
    "dsb2018 without masks": ("dsb2018", without("masks"), [f"{1:064x}"]),
    "dsb2018 without an image": ("dsb2018", without(f"images/{1:064x}.png"), ["source", f"{1:064x}"]),
    "folder without masks": ("folder", without("masks"), ["masks"]),
    "folder without images": ("folder", without("images"), ["images"]),
    "folder without a mask": ("folder", without("masks/2.png"), ["2.png"]),
    "folder with empty images": ("folder", emptied("images"), ["source"]),
    "folder with a file in place of images": ("folder", file_for("images"), ["images"]),
    "folder with a file in place of masks": ("folder", file_for("masks"), ["masks"]),
}


def test_data_sets_that_are_half_there(trial: Any, some_of: Any, draw: Any) -> None:
    for case, (dataset, change, naming) in some_of(BROKEN, 8).items():
        source, command = embed(trial, dataset)
        LAYOUTS[dataset](source, draw)
        change(source)
        ended = trial(FAULT, case, command, naming=naming, untouched=source)
        assert not set(ended.err) & set("\x1b\x07\r\0")


def test_sources_that_are_no_folders(trial: Any, draw: Any) -> None:
    fault = "source that is no folder, or empty"
    for dataset in ("folder", "conic"):
        for case, make in {
            "none": lambda place: None,
            "empty": lambda place: place.mkdir(),
            "a file": lambda place: place.write_text("text"),
            "a dangling link": lambda place: place.symlink_to("nothing"),
            "a loop of links": lambda place: place.symlink_to(place.name),
        }.items():
            source, command = embed(trial, dataset)
            make(source)
            trial(fault, f"{dataset}: {case}", command, naming=["source"])
            assert not (source.parent / "cache").exists()


def test_images_without_anything_to_learn_from(trial: Any, slides: Any, draw: Any, profile: Any) -> None:
    """They are taken in as they are; whether they are enough is for the training to say."""
    fault = "one image, equal images, no nuclei anywhere"
    data = slides()
    for kind in ("images", "masks"):
        (data.folder / kind / "sound 1.png").unlink()
    trial(fault, "one image", data.embed, right=lambda _: data.pixels("sound 0", draw.picture(0)))
    trial(fault, "training on one image", train(data), naming=["mine"], untouched=data.cache)

    data = slides()
    shutil.copy(data.image("sound 0.png"), data.image("twin.png"))
    shutil.copy(data.mask("sound 0.png"), data.mask("twin.png"))
    trial(
        fault,
        "two equal images",
        data.embed,
        kept=data.sound_kept,
        right=lambda _: data.pixels("twin", draw.picture(0)),
    )

    data = slides()
    for number in range(8):
        save(data.image(f"{number}.png"), draw.picture(number))
        save(data.mask(f"{number}.png"), draw.nuclei() * 0)
    (data.folder / "ignore").mkdir()
    save(data.folder / "ignore" / "0.png", draw.nuclei() * 0 + 1)
    for name in ("sound 0", "sound 1"):
        save(data.mask(f"{name}.png"), draw.nuclei() * 0)
    trial(fault, "no nuclei", data.embed, right=lambda _: data.ids("3", draw.nuclei() * 0))
    if profile.name == "short":
        return
    run = data.folder.parent / "run"
    trial(
        fault,
        "training without nuclei",
        [*train(data), "--run", run],
        naming=["mine"],
        right=lambda _: "" if (run / "best.pt").exists() else "nothing was trained",
    )
    if (run / "best.pt").exists():
        trial(
            fault,
            "report without nuclei",
            ["report", run, "--out", run.parent / "report"],
            naming=["run"],
            right=lambda _: "" if (run.parent / "report" / "report.html").exists() else "no report",
        )


def train(data: Any) -> list[object]:
    small = ["--fusion", "none", "--model", "unet", "--width", 2, "--epochs", 1, "--device", "cpu", "--threads", 1]
    return ["train", "--dataset", data.dataset, "--cache", data.cache, *small]


@pytest.mark.parametrize("dataset", ["nuinsseg", "mine"])
def test_a_data_set_that_is_nowhere(dataset: str, trial: Any) -> None:
    place = trial.fresh()
    trial(
        "source that is no folder, or empty",
        f"{dataset} is nowhere",
        ["embed", "--dataset", dataset, "--cache", place / "cache", "--encoder", "none"],
        naming=[dataset],
    )
