"""Source folders that are missing, incomplete, or of another layout."""

import csv
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nucseg_cache import Store
from tests.torture.inputs.drawing import nuclei, picture

FAULT = "data set: wrong or incomplete layout"


def save(file: Path, values: np.ndarray) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(file)


def as_nuinsseg(folder: Path) -> None:
    for number in (1, 2):
        save(folder / "human liver" / "tissue images" / f"human_liver_{number}.png", picture(number))
        save(folder / "human liver" / "label masks modify" / f"human_liver_{number}.tif", nuclei())


def as_cryonuseg(folder: Path) -> None:
    for number in (1, 2):
        save(folder / "tissue images" / f"Human_Skin_0{number}.tif", picture(number))
        labels = folder / "Annotator 1 (biologist)" / "label masks modify"
        save(labels / f"Human_Skin_0{number}.tif", nuclei())


def as_conic(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "images.npy", np.stack([picture(1), picture(2)]))
    labels = np.stack([nuclei(), nuclei() * 0 + 1], axis=-1)
    np.save(folder / "labels.npy", np.stack([labels, labels]))
    (folder / "patch_info.csv").write_text("patch_info\nconsep_1-0000\nconsep_2-0000\n")


def as_dsb2018(folder: Path) -> None:
    for number in (1, 2):
        name = f"{number:064x}"
        save(folder / name / "images" / f"{name}.png", picture(number))
        for nucleus in (1, 2, 3):
            save(folder / name / "masks" / f"{nucleus}.png", ((nuclei() == nucleus) * 255).astype(np.uint8))


def as_folder(folder: Path) -> None:
    for number in (1, 2):
        save(folder / "images" / f"{number}.png", picture(number))
        save(folder / "masks" / f"{number}.png", nuclei())


LAYOUTS: dict[str, Callable[[Path], None]] = {
    "nuinsseg": as_nuinsseg,
    "cryonuseg": as_cryonuseg,
    "conic": as_conic,
    "dsb2018": as_dsb2018,
    "folder": as_folder,
}


def embed(trial: Any, dataset: str) -> tuple[Path, list[object]]:
    """A source folder that does not exist yet, and the command that reads it."""
    folder = trial.new_folder()
    source = folder / "source"
    named = ["--dataset", dataset, "--source", source, "--cache", folder / "cache"]
    return source, ["embed", *named, "--encoder", "none"]


def nuclei_problem(source: Path, dataset: str, _: Any) -> str:
    store = Store.open(source.parent / "cache" / f"{dataset}.zarr")
    found = [len(np.unique(sample.instances)) - 1 for sample in store.read_samples(range(store.n_rows))]
    return "" if found == [3, 3] else f"{found} nuclei"


def test_each_layout_given_to_each_reader(trial: Any, some_of: Any) -> None:
    pairs = {f"{layout} as {dataset}": (layout, dataset) for layout in LAYOUTS for dataset in LAYOUTS}
    for case, (layout, dataset) in some_of(pairs, 4).items():
        source, command = embed(trial, dataset)
        LAYOUTS[layout](source)
        check = partial(nuclei_problem, source, dataset) if layout == dataset else None
        trial(FAULT, case, command, naming=[str(source)], check=check, untouched=source)
        assert layout == dataset or not (source.parent / "cache").exists()


def emptied(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (found,) = folder.rglob(name)
        shutil.rmtree(found)
        found.mkdir()

    return change


def without(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        found = sorted(folder.rglob(name))[0]
        shutil.rmtree(found) if found.is_dir() else found.unlink()

    return change


def file_for(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        without(name)(folder)
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("a file")

    return change


def twice(folder: Path) -> None:
    for name in ("one", "two"):
        shutil.copytree(folder, folder.parent / "copies" / name)
    shutil.rmtree(folder)
    (folder.parent / "copies").rename(folder)


def array(name: str, values: Any) -> Callable[[Path], None]:
    return lambda folder: np.save(folder / name, values, allow_pickle=True)


def text(name: str, content: bytes) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / name).write_bytes(content)

    return change


def cut(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])

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
    "conic with truncated images": ("conic", cut(IMAGES), [IMAGES]),
    "conic with truncated labels": ("conic", cut(LABELS), [LABELS]),
    "conic with float images": ("conic", array(IMAGES, np.zeros((2, 256, 256, 3))), [IMAGES]),
    "conic with 16-bit images": ("conic", array(IMAGES, np.zeros((2, 256, 256, 3), np.uint16)), [IMAGES]),
    "conic with gray images": ("conic", array(IMAGES, np.zeros((2, 256, 256), np.uint8)), [IMAGES]),
    "conic with a single image": ("conic", array(IMAGES, np.zeros((256, 256, 3), np.uint8)), [IMAGES]),
    "conic with channels first": ("conic", array(IMAGES, np.zeros((2, 3, 256, 256), np.uint8)), [IMAGES]),
    "conic with a number instead of images": ("conic", array(IMAGES, np.uint8(3)), [IMAGES]),
    "conic with no images": ("conic", array(IMAGES, np.zeros((0, 256, 256, 3), np.uint8)), [IMAGES, "source"]),
    "conic with pickled images": ("conic", array(IMAGES, np.array([{"a": 1}, None], object)), [IMAGES]),
    "conic with pickled labels": ("conic", array(LABELS, np.array([print, None], object)), [LABELS]),
    "conic with records": ("conic", array(LABELS, np.zeros(2, [("a", "i4"), ("b", "i4")])), [LABELS]),
    "conic with float labels": ("conic", array(LABELS, np.zeros((2, 256, 256, 2), np.float32)), [LABELS]),
    "conic with one channel of labels": ("conic", array(LABELS, np.zeros((2, 256, 256), np.uint16)), [LABELS]),
    "conic with negative labels": ("conic", array(LABELS, np.full((2, 256, 256, 2), -3, np.int16)), [LABELS]),
    "conic with more labels": ("conic", array(LABELS, np.zeros((3, 256, 256, 2), np.uint16)), [LABELS]),
    "conic with text instead of images": ("conic", text(IMAGES, b"not an array"), [IMAGES]),
    "conic with an empty file": ("conic", text(LABELS, b""), [LABELS]),
    "conic with a false header": ("conic", text(IMAGES, HUGE.ljust(128) + b"\n" + bytes(999)), [IMAGES]),
    "conic with code in a header": ("conic", text(IMAGES, CODE), [IMAGES]),
    "conic with a pickle": ("conic", text(IMAGES, b"\x80\x04cos\nsystem\n(S'touch pwned'\ntR."), [IMAGES]),
    "conic with a short table": ("conic", text(INFO, table("consep_1-0000")), [INFO]),
    "conic with an empty table": ("conic", text(INFO, b""), [INFO]),
    "conic with another column": ("conic", text(INFO, table("a_1-0", "a_2-0", column="name")), [INFO]),
    "conic with a duplicate name": ("conic", text(INFO, table("a_1-0000", "a_1-0000")), [INFO]),
    "conic with malformed names": ("conic", text(INFO, table("a", "b")), [INFO]),
    "conic with paths as names": ("conic", text(INFO, table("../../a_1-0", "/etc/b_2-0")), [INFO]),
    "conic with control characters": ("conic", text(INFO, table("a\x1b[2J_1-0", "b_2-0")), [INFO]),
    "conic with line breaks in names": ("conic", text(INFO, table('"a_\n1-0"', "b_2-0")), [INFO]),
    "conic with NUL in its table": ("conic", text(INFO, b"patch_info\na_1-0\0\nb_2-0\n"), [INFO]),
    "conic with a table in UTF-16": ("conic", text(INFO, table("a_1-0", "b_2-0").decode().encode("utf-16")), [INFO]),
    "conic with a binary table": ("conic", text(INFO, bytes(range(256))), [INFO]),
    "conic with a huge field": ("conic", text(INFO, b"patch_info\n" + b"a" * (csv.field_size_limit() + 1)), [INFO]),
    "conic with text files": ("conic", file_for(IMAGES), [IMAGES]),
    "nuinsseg without labels": ("nuinsseg", without("label masks modify"), ["source"]),
    "nuinsseg without a label": ("nuinsseg", without("human_liver_2.tif"), ["human_liver_2"]),
    "nuinsseg with empty images": ("nuinsseg", emptied("tissue images"), ["source"]),
    "two copies of nuinsseg": ("nuinsseg", twice, ["one", "two"]),
    "cryonuseg without labels": ("cryonuseg", without("Annotator 1 (biologist)"), ["Annotator 1"]),
    "cryonuseg without a label": ("cryonuseg", without("*abel masks modify/Human_Skin_02.tif"), ["Human_Skin_02"]),
    "cryonuseg with empty images": ("cryonuseg", emptied("tissue images"), ["tissue images"]),
    "dsb2018 without masks": ("dsb2018", without("masks"), [f"{1:064x}"]),
    "dsb2018 without an image": ("dsb2018", without(f"images/{1:064x}.png"), ["source", f"{1:064x}"]),
    "folder without masks": ("folder", without("masks"), ["masks"]),
    "folder without images": ("folder", without("images"), ["images"]),
    "folder without a mask": ("folder", without("masks/2.png"), ["2.png"]),
    "folder with empty images": ("folder", emptied("images"), ["source"]),
    "folder with a file instead of images": ("folder", file_for("images"), ["images"]),
    "folder with a file instead of masks": ("folder", file_for("masks"), ["masks"]),
}


def test_incomplete_data_sets(trial: Any, some_of: Any) -> None:
    for case, (dataset, change, naming) in some_of(BROKEN, 6).items():
        source, command = embed(trial, dataset)
        LAYOUTS[dataset](source)
        change(source)
        ended = trial(FAULT, case, command, naming=naming, untouched=source)
        assert not set(ended.err) & set("\x1b\x07\r\0")


NO_SOURCE = "data set: source that is not a folder, or empty"

NOT_FOLDERS: dict[str, Callable[[Path], Any]] = {
    "missing": lambda folder: None,
    "empty": lambda folder: folder.mkdir(),
    "a file": lambda folder: folder.write_text("text"),
    "a dangling link": lambda folder: folder.symlink_to("nothing"),
    "a loop of links": lambda folder: folder.symlink_to(folder.name),
}


@pytest.mark.parametrize("dataset", ["folder", "conic"])
def test_sources_that_are_not_folders(dataset: str, trial: Any) -> None:
    for case, make in NOT_FOLDERS.items():
        source, command = embed(trial, dataset)
        make(source)
        trial(NO_SOURCE, f"{dataset}: {case}", command, naming=["source"])
        assert not (source.parent / "cache").exists()


@pytest.mark.parametrize("dataset", ["nuinsseg", "mine"])
def test_no_source(dataset: str, trial: Any) -> None:
    command = ["embed", "--dataset", dataset, "--cache", trial.new_folder() / "cache", "--encoder", "none"]
    trial(NO_SOURCE, f"{dataset} without a source", command, naming=[dataset])


def test_images_that_cannot_be_learned_from(trial: Any, dataset: Any, profile: Any) -> None:
    """`embed` accepts them; whether they are enough is decided by `train`."""
    fault = "data set: one image, equal images or no nuclei"
    data = dataset()
    for kind in ("images", "masks"):
        (data.folder / kind / "sound 1.png").unlink()
    data.try_embed(fault, "one image", check=lambda _: data.pixels("sound 0", picture(0)), always=lambda: "")
    trial(fault, "training on one image", train(data), naming=["mine"], untouched=data.cache)

    data = dataset()
    data.add("twin", picture(0))
    data.try_embed(fault, "two equal images", check=lambda _: data.pixels("twin", picture(0)))

    data, empty = dataset(), nuclei() * 0
    for number in range(8):
        data.add(str(number), picture(number), empty)
    for seed, name in enumerate(("sound 0", "sound 1")):
        data.add(name, picture(seed), empty)
    save(data.folder / "ignore" / "0.png", empty + 1)
    data.try_embed(fault, "no nuclei", check=lambda _: data.ids("3", empty), always=lambda: "")
    if profile.name == "short":
        return
    run, report = data.folder.parent / "run", data.folder.parent / "report" / "report.html"
    trained = lambda _: "" if (run / "best.pt").exists() else "nothing was trained"  # noqa: E731
    trial(fault, "training without nuclei", [*train(data), "--run", run], naming=["mine"], check=trained)
    if (run / "best.pt").exists():
        reported = lambda _: "" if report.exists() else "there is no report"  # noqa: E731
        command = ["report", run, "--out", report.parent]
        trial(fault, "report without nuclei", command, naming=["run"], check=reported)


def train(data: Any) -> list[object]:
    small = ["--fusion", "none", "--model", "unet", "--width", 2, "--epochs", 1, "--device", "cpu", "--threads", 1]
    return ["train", "--dataset", data.name, "--cache", data.cache, *small]
