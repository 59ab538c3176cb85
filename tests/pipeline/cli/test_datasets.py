"""`nucseg datasets` on the command line."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from nucseg.data import Entry, dataset_names
from nucseg_cache import Store
from nucseg_pipeline.cli import app
from nucseg_pipeline.cli.console import out
from nucseg_pipeline.datasets.status import dataset_status, protocol_with_folds

WIDTHS = (80, 140)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    monkeypatch.setenv("NUCSEG_DATA", str(tmp_path / "data [sets]"))
    monkeypatch.setenv("NUCSEG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(out, "width", 80)


@pytest.fixture
def slides(tmp_path: Path) -> Path:
    """Twelve images of one patient each; three nuclei on each."""
    folder = tmp_path / "my [slides]"
    for number in range(12):
        for kind in ("images", "masks"):
            (folder / kind / f"patient {number}").mkdir(parents=True)
        Image.new("RGB", (48, 32)).save(folder / "images" / f"patient {number}" / "a.png")
        mask = np.kron(np.eye(32, 48, dtype=np.uint8)[::8, ::16] * 40, np.ones((8, 16), np.uint8))
        mask[0, 40:] = [7, 0, 9, 9, 0, 0, 0, 0]
        mask[8:] = 0
        Image.fromarray(mask).save(folder / "masks" / f"patient {number}" / "a.png")
    return folder


def nucseg(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["datasets", *(str(argument) for argument in arguments)])


def words(text: str) -> str:
    """The text without its line breaks."""
    return " ".join(text.split())


def cells(text: str) -> list[str]:
    """The cells of a table, without their line breaks."""
    found: list[str] = []
    for rule in text.split("├"):
        lines = [line.strip("│").split("│") for line in rule.splitlines() if line.startswith("│")]
        found += [words(" ".join(parts)) for parts in zip(*lines, strict=True)]
    return found


@pytest.mark.parametrize("width", WIDTHS)
def test_the_table_fits_the_terminal_and_has_all_data_sets(
    tmp_path: Path, width: int, monkeypatch, slides: Path
) -> None:
    monkeypatch.setattr(out, "width", width)
    Store.create(tmp_path / "cache" / "mine.zarr", dataset="mine", source=str(slides), preparation={"side_px": "32"})
    (tmp_path / "cache" / "bad.zarr").mkdir()
    (tmp_path / "data [sets]" / "nuinsseg").mkdir(parents=True)

    result = nucseg()

    assert result.exit_code == 0, result.output
    table = [line for line in result.stdout.splitlines() if line[0] in "┏┃┡│├└"]
    assert len({len(line) for line in table}) == 1
    assert len(table[0]) <= width
    printed = cells(result.stdout)
    assert {*dataset_names(), "mine", "bad"} - {"folder"} <= set(printed)
    for wanted in ("31 human and mouse organs", "CC BY-NC-SA 4.0", "665", "4981", "not found", "complete", "wrong: "):
        assert any(wanted in cell for cell in printed), wanted
    for wanted in ("12 images", "0 images, 0 embeddings", "drawn, not read"):
        assert any(wanted in cell for cell in printed), wanted
    assert f"$NUCSEG_DATA ({tmp_path / 'data [sets]'}), in ./data" in result.stdout
    assert "`nucseg fetch` downloads one. `nucseg datasets NAME` says how" in result.stdout


def test_a_data_set_is_described_with_how_to_get_it(tmp_path: Path) -> None:
    result = nucseg("cryonuseg")

    assert result.exit_code == 0, result.output
    text = words(result.stdout)
    for fact in ("10 human organs", "CC BY-NC-SA 4.0", "kaggle.com/datasets/ipateam", "Annotator 1 (biologist)/"):
        assert fact in text
    for fact in ("leave one organ out, 10 folds", "1.7 MiB an image", "0.050 GiB for 30", "found nothing:"):
        assert fact in text
    assert f"looked in {tmp_path / 'data [sets]' / 'cryonuseg'} {tmp_path / 'empty' / 'data' / 'cryonuseg'}" in text
    assert "reading" not in text


def test_addresses_and_paths_are_never_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(out, "width", 50)

    text = nucseg("cryonuseg").stdout

    assert "https://www.kaggle.com/datasets/ipateam/segmentation-of-nuclei-in-cryosectioned-he-images\n" in text
    assert " ipateam/segmentation-of-nuclei-in-cryosectioned-he-images\n" in text
    assert f" {tmp_path / 'data [sets]' / 'cryonuseg'}\n" in text


def test_every_image_is_read_and_its_nuclei_counted(slides: Path) -> None:
    result = nucseg("mine", "--source", slides)

    assert result.exit_code == 0, result.output
    assert "reading: 12 of 12" in result.stdout
    assert "12 images, all can be read: 36 nuclei" in result.stdout
    assert str(slides) in result.stdout
    assert "With these images: 5 folds" in words(result.stdout)
    assert "binary" not in words(result.stderr)


def test_what_is_found_in_masks_is_said_after_reading_them(slides: Path) -> None:
    for number in range(5):
        mask = np.zeros((32, 48), np.uint16)
        mask[2:9, 2:9] = mask[12:19, 22:29] = 65535
        Image.fromarray(mask).save(slides / "masks" / f"patient {number}" / "a.png")

    result = nucseg("mine", "--source", slides)

    assert "5 of 12 masks are binary: 10 pieces; touching nuclei are one" in words(result.stderr)
    assert "12 images, all can be read: 31 nuclei" in result.stdout


def test_bad_images_are_named_and_counted(slides: Path) -> None:
    for number in range(10):
        (slides / "images" / f"patient {number}" / "a.png").write_bytes(b"no image")

    result = nucseg("mine", "--source", slides)

    assert result.exit_code == 1
    assert "10 of 12 images cannot be read; 6 nuclei in the others" in result.stdout
    named = [line for line in result.stderr.splitlines() if line.startswith("patient ")]
    assert len(named) == 8
    assert named[0].startswith("patient 0/a: ")
    assert "a.png" in named[0]
    assert "and 2 more" in result.stderr
    assert "Traceback" not in result.output


def test_nothing_is_read_where_that_is_asked_for(slides: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(entry: Entry) -> None:
        raise AssertionError

    entries = dataset_status("mine", "", slides).dataset.entries
    monkeypatch.setattr(type(entries[0]), "read", read)
    result = nucseg("mine", "--source", slides, "--no-read")

    assert result.exit_code == 0, result.output
    assert "12 images listed (12 images), none read" in result.stdout


def test_a_folder_that_is_something_else_is_an_error_after_what_is_known(slides: Path) -> None:
    result = nucseg("nuinsseg", "--source", slides)

    assert result.exit_code == 1
    assert "zenodo.org" in result.stdout
    assert result.stderr.startswith(f"error: {slides} is not NuInsSeg")
    assert "Traceback" not in result.output


def test_an_unknown_name_is_an_error_that_names_the_known_ones() -> None:
    result = nucseg("nuinseg")

    assert result.exit_code == 1
    assert "'nuinseg': known are nuinsseg, " in result.stderr


@pytest.mark.parametrize("option", [("--source", "x"), ("--convert", "full-range"), ("--no-read",)])
def test_options_of_one_data_set_need_its_name(option: tuple[str, ...]) -> None:
    result = nucseg(*option)

    assert result.exit_code == 2
    assert "NAME" in result.output


def test_a_damaged_store_is_reported_with_its_data_set(tmp_path: Path) -> None:
    (tmp_path / "cache" / "synthetic.zarr").mkdir(parents=True)
    (tmp_path / "cache" / "synthetic.zarr" / "zarr.json").write_text("{")

    result = nucseg("synthetic", "--no-read")

    assert result.exit_code == 0
    assert "in the cache  zarr.json of" in result.stdout
    assert "60 images listed (complete), none read" in result.stdout
    assert words(protocol_with_folds(dataset_status("synthetic", ""))) in words(result.stdout)


@pytest.mark.shared
@pytest.mark.parametrize(("name", "count", "least"), [("cryonuseg", "5 of 30 images", 500), ("conic", "1 of 4981", 10)])
def test_the_real_images_can_be_read(shared: Path, name: str, count: str, least: int) -> None:
    result = nucseg(name, "--source", shared / "data" / name)

    assert result.exit_code == 0, result.output
    last = result.stdout.splitlines()[-1]
    assert last.startswith(count)
    assert int(last.split()[-2]) >= least
