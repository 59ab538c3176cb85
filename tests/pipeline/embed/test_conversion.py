"""Images of more than 8 bits are embedded if a conversion is asked for, and the store records it."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from nucseg.data import prepare_image
from nucseg.data.slides import open_slide
from nucseg.errors import ConfigError, DataError
from nucseg_cache import Store
from nucseg_pipeline.ablate.prerequisites import sync_images
from nucseg_pipeline.config import EmbedConfig, PredictConfig, TrainConfig
from nucseg_pipeline.datasets.locate import open_source
from nucseg_pipeline.datasets.status import check, find_dataset
from nucseg_pipeline.embed.stage import embed
from nucseg_pipeline.evaluation.scored_images import native_grid
from nucseg_pipeline.modelling.inference import Prediction
from nucseg_pipeline.predict.predictor import Predictor

IMAGE = np.random.default_rng(0).integers(0, 65_536, (64, 64, 3), dtype=np.uint16)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for kind in ("images", "masks"):
        (tmp_path / "own" / kind).mkdir(parents=True)
    mask = np.zeros((64, 64), np.uint16)
    mask[10:20, 10:20], mask[30:40, 30:44] = 1, 2
    for name in "abc":
        tifffile.imwrite(tmp_path / "own" / "images" / f"{name}.tif", IMAGE, photometric="rgb")
        Image.fromarray(mask).save(tmp_path / "own" / "masks" / f"{name}.png")
    return tmp_path / "own"


def embedded(folder: Path, cache: Path, **options: Any) -> Store:
    config = EmbedConfig(dataset="own", source=folder, encoder="none", cache=str(cache), **options)
    return Store.open(embed(config).location)


def test_a_converted_store_has_the_scaled_pixels_and_another_identity(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"16-bit unsigned pixels.*--convert full-range"):
        embedded(folder, tmp_path / "plain")

    store = embedded(folder, tmp_path / "cache", convert="full-range")

    assert store.preparation["convert"] == "full-range"
    expected = prepare_image(np.rint(IMAGE / 257).astype(np.uint8))
    assert np.abs(store.read_samples([0])[0].image.astype(int) - expected).max() <= 1
    with pytest.raises(ConfigError, match=r"prepared as .*leave out --convert or take --convert full-range") as refused:
        embedded(folder, tmp_path / "cache", convert="none")
    assert "STAIN" not in str(refused.value)


def test_without_the_option_images_are_read_as_those_in_the_store(folder: Path, tmp_path: Path) -> None:
    store = embedded(folder, tmp_path / "cache", convert="full-range")
    shutil.copy(folder / "images" / "a.tif", folder / "images" / "d.tif")
    shutil.copy(folder / "masks" / "a.png", folder / "masks" / "d.png")

    assert embedded(folder, tmp_path / "cache").n_rows == 4
    first, *_, last = Store.open(store.location).read_samples(range(4))
    assert np.array_equal(first.image, last.image)


def test_an_ablation_brings_a_converted_store_up_to_date(folder: Path, tmp_path: Path) -> None:
    store = embedded(folder, tmp_path / "cache", convert="full-range")
    (folder / "images" / "c.tif").unlink()
    (folder / "masks" / "c.png").unlink()

    sync_images(TrainConfig(dataset="own", cache=str(tmp_path / "cache")), lambda done, total, what: None)

    assert [info.present for info in Store.open(store.location).table] == [True, True, False]


@pytest.mark.parametrize("workers", [None, 1])
def test_embeddings_are_added_to_a_converted_store(folder: Path, tmp_path: Path, workers: int | None) -> None:
    embedded(folder, tmp_path / "cache", convert="full-range")
    config = EmbedConfig(dataset="own", encoder="random", cache=str(tmp_path / "cache"), workers=workers, threads=1)
    assert embed(config).n_encoded == 3


def test_the_check_reads_images_as_for_the_store_or_as_it_is_asked_to(folder: Path, tmp_path: Path) -> None:
    def n_bad(cache: str, convert: str | None) -> int:
        dataset = find_dataset("own", str(tmp_path / cache), folder, convert).dataset
        assert dataset is not None
        return len(check(dataset, lambda done, total, what: None).bad)

    embedded(folder, tmp_path / "cache", convert="full-range")

    assert (n_bad("cache", None), n_bad("none", None), n_bad("none", "full-range")) == (0, 3, 0)


def test_images_that_are_not_files_cannot_be_converted(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--convert applies to image files, and synthetic has none"):
        embed(EmbedConfig(dataset="synthetic", encoder="none", cache=str(tmp_path), convert="full-range"))


def test_the_native_grid_reads_the_source_with_the_conversion_of_the_store(folder: Path, tmp_path: Path) -> None:
    store = embedded(folder, tmp_path / "cache", convert="full-range")
    (sample,) = store.read_samples([0])
    prediction = Prediction(sample, (sample.instances > 0).astype(np.float32))

    native = native_grid(store, (sample.id,), None)(prediction)

    assert np.abs(native.image.astype(int) - np.rint(IMAGE / 257)).max() <= 1


def test_a_store_of_8_bit_images_is_as_before(folder: Path, tmp_path: Path) -> None:
    for name in "abc":
        tifffile.imwrite(folder / "images" / f"{name}.tif", (IMAGE >> 8).astype(np.uint8), photometric="rgb")
    assert dict(embedded(folder, tmp_path / "cache").preparation) == {"side_px": "256", "stain": "none"}


def test_an_unknown_conversion_is_refused(folder: Path) -> None:
    for refuse in (
        lambda: EmbedConfig(dataset="own", convert="full_range"),
        lambda: PredictConfig(images=(folder,), run=folder, out=folder, convert="full_range"),
        lambda: Predictor.open(folder, convert="full_range"),
        lambda: open_slide(folder / "images" / "a.tif", convert="full_range"),
        lambda: open_source("own", folder, convert="full_range"),
    ):
        with pytest.raises(ConfigError, match=r"convert must be none or full-range, got 'full_range'\. .*full-range"):
            refuse()
