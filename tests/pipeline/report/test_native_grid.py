"""A report on the native grid through all stages, on images that are larger than the grid, and not square."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from nucseg.nuclei.instances import separate
from nucseg_pipeline.config import EmbedConfig, ReportConfig, TrainConfig
from nucseg_pipeline.embed.stage import embed
from nucseg_pipeline.report import stage
from nucseg_pipeline.report.image_layers import GalleryImage
from nucseg_pipeline.report.stage import report
from nucseg_pipeline.runs.run import Run
from nucseg_pipeline.train.stage import train

SIZES = ((512, 512), (300, 420))
N_IMAGES = 10


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Dark discs on a bright ground, each on a slide of its own; embedded, and trained on without guidance."""
    place = tmp_path_factory.mktemp("native")
    for number in range(N_IMAGES):
        h, w = SIZES[number % 2]
        random = np.random.default_rng(number)
        y, x = np.mgrid[:h, :w]
        instances = np.zeros((h, w), np.uint16)
        for disc in range(1, 13):
            centre_y, centre_x = random.integers(20, h - 20), random.integers(20, w - 20)
            instances[(y - centre_y) ** 2 + (x - centre_x) ** 2 < 200] = disc
        image = random.integers(170, 230, (h, w, 3)) - 120 * (instances > 0)[..., None]
        for kind, values in {"images": image.astype(np.uint8), "masks": instances}.items():
            (place / "slides" / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(values).save(place / "slides" / kind / f"{number}.png")
    cache = str(place / "cache")
    embed(EmbedConfig(dataset="own", source=place / "slides", encoder="none", cache=cache), lambda *_: None)
    train(
        TrainConfig(
            dataset="own", cache=cache, fusion="none", width=4, epochs=6, batch_size=2, learning_rate=1e-2, dropout=0,
            threads=1, run=place / "run",
        )
    )  # fmt: skip
    return place


def test_the_native_report_is_what_is_computed_by_hand_at_full_size(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[GalleryImage] = []
    # the page takes longest to write and is tested elsewhere
    monkeypatch.setattr(stage, "page_text", lambda summary, columns, gallery: shown.extend(gallery.images) or "")
    report(ReportConfig(runs=(place / "run",), grid="native", out=tmp_path, n_images=2, n_resamples=50))

    run = Run.open(place / "run")
    with (tmp_path / "per_image.csv").open(newline="") as file:
        lines = {line["id"]: line for line in csv.DictReader(file)}
    assert set(lines) == set(run.split.test)
    for prediction in run.predict(run.split.test):
        line = lines[prediction.sample.id]
        truth = np.asarray(Image.open(place / "slides" / "masks" / f"{prediction.sample.id}.png"))
        scale = max(truth.shape) / 256
        content = prediction.probability[: round(truth.shape[0] / scale), : round(truth.shape[1] / scale)]
        # another library's linear interpolation between the same pixel centres
        rows, columns = (
            (np.arange(native) + 0.5) * small / native - 0.5
            for native, small in zip(truth.shape, content.shape, strict=True)
        )
        grid = np.meshgrid(rows, columns, indexing="ij")
        native = ndimage.map_coordinates(content, grid, order=1, mode="nearest").astype(np.float32)
        found = native >= run.rule.threshold
        tp = (found & (truth > 0)).sum()
        assert tp > 0.5 * (truth > 0).sum()  # something was learned, or all of this would say little
        assert float(line["dice"]) == pytest.approx(2 * tp / (found.sum() + (truth > 0).sum()), abs=2e-3)
        assert int(line["tp_px"]) + int(line["fn_px"]) == (truth > 0).sum()
        assert int(line["n_true"]) == len(np.unique(truth)) - 1
        assert abs(int(line["n_predicted"]) - separate(native, run.rule.scaled(scale)).max()) <= 1
    assert {drawn.image.image.shape[:2] for drawn in shown} <= set(SIZES)
    for drawn in shown:
        assert drawn.instances["run"].max() == int(lines[drawn.image.id]["n_predicted"])
    assert json.loads((tmp_path / "summary.json").read_text())["grid"] == "native grid"
