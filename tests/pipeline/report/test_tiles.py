"""A report by tiles scores the nuclei that `predict` finds in the same files, and others say what they shrank."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from nucseg.errors import ConfigError, EncoderError
from nucseg.metrics import count_pixels, dice
from nucseg_cache import RowInfo
from nucseg_pipeline.config import EmbedConfig, PredictConfig, ReportConfig, TrainConfig
from nucseg_pipeline.embed.stage import embed
from nucseg_pipeline.predict.stage import predict
from nucseg_pipeline.report import stage
from nucseg_pipeline.report.image_layers import GalleryImage
from nucseg_pipeline.report.stage import ReportResult, report
from nucseg_pipeline.report.tiles import shrunk_note
from nucseg_pipeline.runs.run import TrainedRun
from nucseg_pipeline.train.stage import train

RUNS = ("guided", "unguided")
SIZES = {"large": (400, 1000), "tall": (500, 200), "small": (120, 200)}
"""Images of the foreign set: several tiles, narrower than a tile in one direction, and smaller than a tile."""
IGNORED_COLUMNS = 90


def silent(*_: object) -> None:
    """Report nothing."""


def draw(folder: Path, name: str, size: tuple[int, int], n_nuclei: int, *, ignore: int = 0) -> None:
    """Dark discs on a bright ground, as image and instance map; the first `ignore` columns are not annotated."""
    random = np.random.default_rng(list(name.encode()))
    y, x = np.mgrid[: size[0], : size[1]]
    instances = np.zeros(size, np.uint16)
    for disc in range(1, n_nuclei + 1):
        centre_y, centre_x = random.integers(10, size[0] - 10), random.integers(10, size[1] - 10)
        instances[(y - centre_y) ** 2 + (x - centre_x) ** 2 < 110] = disc
    image = random.normal((215, 165, 205), 9, (*size, 3)) - (instances > 0)[..., None] * np.array((100, 90, 50))
    kinds = {"images": image.clip(0, 255).astype(np.uint8), "masks": instances}
    if ignore:
        kinds["ignore"] = np.where(x < ignore, 255, 0).astype(np.uint8)
    for kind, values in kinds.items():
        (folder / kind).mkdir(parents=True, exist_ok=True)
        Image.fromarray(values).save(folder / kind / f"{name}.png")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, instant_encoder: str) -> Path:
    """A guided and an unguided run on images of 256 px, in their own colours and normalised, and a foreign set."""
    place = tmp_path_factory.mktemp("tiles")
    for number in range(6):
        draw(place / "own", str(number), (256, 256), 14)
    for name, size in SIZES.items():
        draw(place / "foreign", name, size, size[0] * size[1] // 4500, ignore=IGNORED_COLUMNS if name == "large" else 0)
    shared: dict[str, Any] = {"cache": str(place / "cache"), "encoder": instant_encoder, "threads": 1}
    for dataset in ("own", "foreign"):
        embed(EmbedConfig(dataset=dataset, source=place / dataset, **shared), silent)
        stained = {**shared, "encoder": "none", "stain": "macenko"}
        embed(EmbedConfig(dataset=dataset, source=place / dataset, **stained), silent)
    for name, dataset in (("guided", "own"), ("unguided", "own"), ("stained", "own@macenko")):
        train(
            TrainConfig(
                dataset=dataset, fusion="concat" if name == "guided" else "none", width=4, model="unet", epochs=8,
                batch_size=2, instance_head="distance" if name == "guided" else "none", learning_rate=1e-2, dropout=0,
                device="cpu", run=place / name, **shared,
            )
        )  # fmt: skip
    return place


@pytest.fixture
def by_tiles(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[ReportResult, dict[str, GalleryImage]]]:
    """Makes a report by tiles and returns the images that it draws, by id."""

    def make(*runs: str, **wanted: Any) -> tuple[ReportResult, dict[str, GalleryImage]]:
        drawn: list[GalleryImage] = []
        # the page takes longest to write and is tested elsewhere
        monkeypatch.setattr(stage, "page_text", lambda summary, columns, gallery: drawn.extend(gallery.images) or "")
        given = {"datasets": ("foreign",), "grid": "tiles", "out": tmp_path / "report", "n_resamples": 50, **wanted}
        result = report(ReportConfig(runs=tuple(place / name for name in runs), device="cpu", **given))
        return result, {entry.image.id: entry for entry in drawn}

    return make


def predicted(place: Path, run: str, out: Path) -> dict[str, np.ndarray]:
    """Name -> instance map that predict writes for the files of the foreign set."""
    predict(PredictConfig(images=(place / "foreign" / "images",), run=place / run, out=out, device="cpu", threads=1))
    return {name: tifffile.imread(out / name / "instances.tif") for name in SIZES}


def rows_of(result: ReportResult) -> dict[tuple[str, str], dict[str, str]]:
    with (result.folder / "per_image.csv").open(newline="") as file:
        return {(row["configuration"], row["id"]): row for row in csv.DictReader(file)}


@pytest.mark.parametrize("run", RUNS)
def test_a_report_by_tiles_scores_the_nuclei_of_predict(
    place: Path, tmp_path: Path, by_tiles: Callable[..., tuple[ReportResult, dict[str, GalleryImage]]], run: str
) -> None:
    result, drawn = by_tiles(run)

    rows = rows_of(result)
    threshold = TrainedRun.opened(place / run).rule.threshold
    for name, instances in predicted(place, run, tmp_path / "predicted").items():
        np.testing.assert_array_equal(drawn[name].instances[run], instances)
        truth = np.asarray(Image.open(place / "foreign" / "masks" / f"{name}.png"))
        counted = np.ones(truth.shape, bool)
        counted[:, : IGNORED_COLUMNS if name == "large" else 0] = False
        foreground = drawn[name].image.probability >= threshold
        assert foreground[instances > 0].all()
        row = rows[run, name]
        assert float(row["dice"]) == pytest.approx(dice(count_pixels(truth > 0, foreground, ~counted)))
        assert float(row["dice"]) > 0.5  # something was learned, or all of this would say little
        assert int(row["tp_px"]) + int(row["fn_px"]) == ((truth > 0) & counted).sum()
        assert int(row["n_true"]) == len(np.unique(truth[counted & (truth > 0)]))
        if name != "large":  # where pixels are ignored, nuclei in them are not counted
            assert int(float(row["n_predicted"])) == instances.max()
    summary = json.loads((result.folder / "summary.json").read_text())
    assert summary["grid"] == "native grid, by tiles"
    assert [note for note in summary["notes"] if "in tiles" in note]
    assert [note for note in summary["notes"] if note.startswith("3 images are assumed to have the magnification")]


def test_the_stain_is_normalised_as_by_predict(
    place: Path, tmp_path: Path, by_tiles: Callable[..., tuple[ReportResult, dict[str, GalleryImage]]]
) -> None:
    _, drawn = by_tiles("stained", datasets=("foreign@macenko",))

    for name, instances in predicted(place, "stained", tmp_path / "stained").items():
        np.testing.assert_array_equal(drawn[name].instances["stained"], instances)


def test_several_data_sets_are_scored_by_tiles_together(
    place: Path, by_tiles: Callable[..., tuple[ReportResult, dict[str, GalleryImage]]]
) -> None:
    result, _ = by_tiles(*RUNS, datasets=("own", "foreign"), n_images=0)

    assert result.matrix
    assert [comparison.name for summary in result.summaries for comparison in summary.comparisons] == ["unguided"] * 2
    assert [column.dataset for column in result.matrix.columns] == ["own", "foreign"]
    assert {column.grid for column in result.matrix.columns} == {"native grid, by tiles"}


def test_a_report_on_shrunk_images_says_so_and_names_the_command(
    place: Path, by_tiles: Callable[..., tuple[ReportResult, dict[str, GalleryImage]]]
) -> None:
    result, _ = by_tiles(*RUNS, grid="256", n_images=0)

    (note,) = [note for note in result.summaries[0].notes if "shrunk" in note]
    assert note.startswith("guided, unguided: 2 of 3 images are 2.0 to 3.9 times as long as the training images (long")
    assert f"`nucseg report {place / 'guided'} {place / 'unguided'} --dataset foreign --grid tiles" in note


def test_images_of_the_size_of_the_training_images_are_not_said_to_be_shrunk(
    by_tiles: Callable[..., tuple[ReportResult, dict[str, GalleryImage]]],
) -> None:
    result, _ = by_tiles(*RUNS, datasets=(), grid="256", n_images=0)

    assert not [note for note in result.summaries[0].notes if "shrunk" in note]


@pytest.mark.parametrize(
    ("mpp", "trained_mpp", "times"),
    [(None, 0.0, "2.0"), (0.5, 0.0, "2.0"), (None, 0.5, "2.0"), (0.5, 0.25, "4.0"), (0.25, 0.5, None)],
)
def test_sizes_are_compared_in_microns_where_both_resolutions_are_known(
    mpp: float | None, trained_mpp: float, times: str | None
) -> None:
    image = RowInfo(0, "a", "a", "all", mpp, (600, 1024), bytes(32), bytes(32))
    run = SimpleNamespace(inputs=SimpleNamespace(native_px=512, mpp=trained_mpp))
    test_set = SimpleNamespace(store=SimpleNamespace(table=[image]), ids={"run": ("a",)})

    notes = shrunk_note(test_set, [SimpleNamespace(name="run", runs={"run": run}, first=run)], "nucseg report")

    assert [note.split(" times ")[0] for note in notes] == ([f"run: 1 of 1 image is {times}"] if times else [])


def test_what_is_missing_is_said_before_anything_is_predicted(
    place: Path, tmp_path: Path, by_tiles: Callable[..., tuple[ReportResult, dict[str, GalleryImage]]]
) -> None:
    (tmp_path / "other.onnx").write_bytes(b"another encoder")

    with pytest.raises(EncoderError, match=r"other\.onnx"):
        by_tiles(*RUNS, weights=tmp_path / "other.onnx")
    with pytest.raises(ConfigError, match=r"3 of 3 images are not in .* Give their folder with --source DIR"):
        by_tiles(*RUNS, source=place / "own")
