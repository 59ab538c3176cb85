"""Images of more than 8 bits are embedded if a conversion is asked for, and the store records it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from nucseg.data import prepare_image
from nucseg.errors import ConfigError, DataError
from nucseg_cache import Store
from nucseg_pipeline.config import EmbedConfig
from nucseg_pipeline.embed.stage import embed
from nucseg_pipeline.evaluation.scored_images import native_grid
from nucseg_pipeline.modelling.inference import Prediction

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
    with pytest.raises(ConfigError, match="prepared as"):
        embedded(folder, tmp_path / "cache")
    assert embedded(folder, tmp_path / "cache", convert="full-range").n_rows == 3


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


def test_an_unknown_conversion_is_refused() -> None:
    with pytest.raises(ConfigError, match="convert must be none or full-range, got 'log'"):
        EmbedConfig(dataset="own", convert="log")
