"""Scoring on the native grid: the source's own masks, and probabilities brought to their size."""

from dataclasses import replace
from math import hypot
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import binary_dilation, binary_erosion

from nucseg.data import open_dataset
from nucseg.errors import ConfigError
from nucseg.nuclei.instances import InstanceRule
from nucseg_cache import Store
from nucseg_pipeline.config import EmbedConfig
from nucseg_pipeline.embed.stage import embed
from nucseg_pipeline.evaluation.scored_images import native_grid, prepared_grid
from nucseg_pipeline.evaluation.scores import score_image
from nucseg_pipeline.modelling.inference import Prediction

WIDE = (60, 96)
"""Native height and width of the image that is not square."""


def nuclei(h: int, w: int) -> NDArray[np.uint16]:
    y, x = np.mgrid[:h, :w]
    instances = np.zeros((h, w), np.uint16)
    for number, (cy, cx) in enumerate([(20, 20), (40, 70), (12, 50)], start=300):
        instances[(y - cy) ** 2 + (x - cx) ** 2 < 81] = number
    return instances


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Two images, one of them not square, with instance maps of the same size."""
    rng = np.random.default_rng(0)
    for name, (h, w) in {"square": (512, 512), "wide": WIDE}.items():
        for folder, values in {
            "images": rng.integers(0, 255, (h, w, 3), dtype=np.uint8),
            "masks": nuclei(h, w),
        }.items():
            (tmp_path / "source" / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(values).save(tmp_path / "source" / folder / f"{name}.png")
    return tmp_path / "source"


@pytest.fixture
def store(source: Path, tmp_path: Path) -> Store:
    config = EmbedConfig(dataset="own", source=source, encoder="random", cache=str(tmp_path / "cache"), device="cpu")
    embed(config, lambda *_: None)
    return Store.open(tmp_path / "cache" / "own.zarr")


def predicted(store: Store, name: str) -> Prediction:
    """The prediction of a network that knows the truth of the prepared image."""
    (sample,) = store.read_samples([store.row_of(name)])
    return Prediction(sample, (sample.instances > 0).astype(np.float32))


@pytest.mark.parametrize("name", ["square", "wide"])
def test_the_truth_is_the_sources_own_and_the_probability_lies_on_it(name: str, store: Store, source: Path) -> None:
    native = native_grid(store, (name,), None)(predicted(store, name))
    entry = next(entry for entry in open_dataset("folder", source).entries if entry.id == name)
    sample, *_ = entry.read()

    np.testing.assert_array_equal(native.instances, sample.instances)
    np.testing.assert_array_equal(native.image, sample.image)
    assert native.probability.shape == sample.instances.shape
    assert native.scale == pytest.approx(max(sample.instances.shape) / 256)
    assert native.diagonal_px == pytest.approx(hypot(*sample.instances.shape))
    found, true = native.probability >= 0.5, sample.instances > 0
    # the border of a nucleus moves by half a prepared pixel at most, which is one native pixel here or less
    assert not (binary_erosion(true, np.ones((3, 3))) & ~found).any()
    assert not (found & ~binary_dilation(true, np.ones((3, 3)))).any()


def test_the_prepared_grid_has_no_padding_and_no_prediction_for_it(store: Store) -> None:
    prediction = predicted(store, "wide")
    prediction.probability[160:] = 1

    scored = prepared_grid(prediction)

    assert scored.image.shape == (160, 256, 3)
    assert scored.instances.shape == scored.ignore.shape == scored.probability.shape == (160, 256)
    assert not scored.ignore.any()
    assert scored.diagonal_px == pytest.approx(hypot(160, 256))
    assert scored.scale == 1
    assert score_image(scored, InstanceRule(min_area_px=0)).n_predicted == 3


@pytest.mark.parametrize("name", ["square", "wide"])
def test_the_distance_comes_to_either_grid_with_the_probability(name: str, store: Store) -> None:
    prediction = predicted(store, name)
    h, w = prediction.content[0].stop, prediction.content[1].stop
    ramp = np.add.outer(np.arange(256), 2 * np.arange(256)).astype(np.float32) / 1000 - 0.1
    prediction = replace(prediction, distance=ramp)

    prepared, native = prepared_grid(prediction), native_grid(store, (name,), None)(prediction)

    np.testing.assert_array_equal(prepared.distance, ramp[:h, :w])
    assert native.distance is not None
    assert native.distance.shape == native.probability.shape
    # away from the edges a ramp is a ramp on any grid: values at the same places, in pixels of the prepared grid
    rows, columns = (
        (np.arange(n) + 0.5) * small / n - 0.5 for n, small in zip(native.distance.shape, (h, w), strict=True)
    )
    expected = np.add.outer(rows, 2 * columns) / 1000 - 0.1
    np.testing.assert_allclose(native.distance[4:-4, 4:-4], expected[4:-4, 4:-4], atol=1e-4)
    assert prepared_grid(predicted(store, name)).distance is None
    assert native_grid(store, (name,), None)(predicted(store, name)).distance is None


def test_images_that_are_gone_from_the_source_are_named_before_anything_is_predicted(
    store: Store, source: Path
) -> None:
    for kind in ("images", "masks"):
        (source / kind / "wide.png").unlink()

    with pytest.raises(ConfigError, match=r"1 of 2 images are not in .*: wide\. .*--source"):
        native_grid(store, ("square", "wide"), None)


def test_a_mask_that_was_redrawn_is_refused(store: Store, source: Path) -> None:
    Image.fromarray(nuclei(*WIDE) * 2).save(source / "masks" / "wide.png")
    grid = native_grid(store, ("wide",), None)

    with pytest.raises(ConfigError, match="wide has changed since it was embedded"):
        grid(predicted(store, "wide"))


def test_a_source_that_has_moved_is_read_from_the_folder_that_is_given(
    store: Store, source: Path, tmp_path: Path
) -> None:
    moved = source.rename(tmp_path / "moved")

    with pytest.raises(ConfigError, match=r"No folder is known .*--source"):
        native_grid(store, ("wide",), None)
    assert native_grid(store, ("wide",), moved)(predicted(store, "wide")).id == "wide"
