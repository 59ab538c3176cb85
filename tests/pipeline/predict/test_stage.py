"""Predict new images: what is written, and what the result must not depend on."""

import csv
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image
from scipy import ndimage
from typer.testing import CliRunner

from nucseg.data import Sample, normalise, prepare, restore, stain_identity, synthetic_dataset
from nucseg.data.slides import ArraySlide
from nucseg.encoders import open_encoder
from nucseg.errors import ConfigError, DataError, EncoderError
from nucseg.nuclei.instances import separate
from nucseg_cache import Key, SampleRow, Store
from nucseg_pipeline.cli import app
from nucseg_pipeline.config import PredictConfig, TrainConfig
from nucseg_pipeline.files.locks import locked
from nucseg_pipeline.predict import nuclei
from nucseg_pipeline.predict import output as results
from nucseg_pipeline.predict.predictor import Predictor
from nucseg_pipeline.predict.probability_maps import map_rows
from nucseg_pipeline.predict.stage import predict
from nucseg_pipeline.predict.tile_model import TileModel
from nucseg_pipeline.runs.run import Run
from nucseg_pipeline.train.stage import train

shapely = pytest.importorskip("shapely")

NATIVE_PX, SIDE_PX = 128, 64
"""Sides of the training images before and after preparation."""


def silent(*progress: object) -> None:
    """Report nothing."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, instant_encoder: str) -> Path:
    """Stores of small drawn images with a guided, an unguided and a stained run; tests must not change them."""
    place = tmp_path_factory.mktemp("predict")
    samples = [entry.read()[0] for entry in synthetic_dataset(8, side_px=NATIVE_PX).entries]
    encoder = open_encoder(instant_encoder, threads=1)
    for stain in ("none", "macenko"):
        images = [normalise(sample.image, stain).image for sample in samples]
        store = Store.create(
            place / "cache" / ("mine.zarr" if stain == "none" else f"mine@{stain}.zarr"),
            dataset="mine" if stain == "none" else f"mine@{stain}",
            source="drawn",
            preparation={"side_px": str(SIDE_PX), **stain_identity(stain)},
            rows=[row(number, *pair) for number, pair in enumerate(zip(samples, images, strict=True))],
        )
        key = Key({**encoder.identity, "format": "f16"})
        store.embeddings(key, recorded={}).write(range(len(images)), encoder.encode(images))
    shared: dict[str, Any] = {
        "cache": str(place / "cache"), "encoder": instant_encoder, "width": 4, "epochs": 2, "batch_size": 2,
        "learning_rate": 5e-3, "device": "cpu", "threads": 1,
    }  # fmt: skip
    train(TrainConfig(dataset="mine", fusion="concat", run=place / "guided", instance_head="distance", **shared))
    train(TrainConfig(dataset="mine", fusion="none", run=place / "unguided", **shared))
    train(TrainConfig(dataset="mine@macenko", fusion="none", run=place / "stained", **{**shared, "epochs": 1}))
    return place


def row(number: int, sample: Sample, image: np.ndarray) -> SampleRow:
    prepared = prepare(image, sample.instances, sample.ignore, side_px=SIDE_PX)
    return SampleRow(
        id=str(number), group=str(number), stratum="drawn", mpp=None, size=prepared.size, image=prepared.image,
        instances=prepared.instances, ignore=prepared.ignore, image_digest=bytes([number] * 32), mask_digest=bytes(32),
    )  # fmt: skip


def native(number: str) -> np.ndarray:
    """The image of an id before preparation."""
    return synthetic_dataset(8, side_px=NATIVE_PX).entries[int(number)].read_image()[0]


@pytest.fixture(scope="module")
def drawing() -> np.ndarray:
    """An image of several tiles: (420, 512, 3)."""
    return synthetic_dataset(1, side_px=512).entries[0].read_image()[0][:420]


@pytest.fixture
def configure(place: Path, tmp_path: Path) -> Callable[..., PredictConfig]:
    def configure(*images: Path, **wanted: Any) -> PredictConfig:
        given = {"run": place / "unguided", "out": tmp_path / "out", "device": "cpu", "threads": 1, **wanted}
        return PredictConfig(images=images, **given)

    return configure


@pytest.fixture
def pyramid(drawing: np.ndarray, tmp_path: Path) -> Path:
    file = tmp_path / "a [slide].ome.tif"
    with tifffile.TiffWriter(file, ome=True) as tiff:
        options = {"photometric": "rgb", "tile": (128, 128)}
        metadata = {"axes": "YXS", "PhysicalSizeX": 0.5, "PhysicalSizeXUnit": "µm"}
        tiff.write(drawing, subifds=1, metadata=metadata, **options)
        tiff.write(drawing[::2, ::2], subfiletype=1, **options)
    return file


def test_what_a_notebook_may_give_by_mistake_is_refused(place: Path) -> None:
    predictor = Predictor.open(str(place / "unguided"), device="cpu", threads=1)

    with pytest.raises(DataError, match=r"must be an array \(H, W, 3\) of uint8 or the path of a file, got Image"):
        predictor.segment(Image.new("RGB", (8, 8)))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"mpp must be a number, .* got '0\.25'"):
        predictor.segment(np.zeros((8, 8, 3), np.uint8), mpp="0.25")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="no device 'cud'"):
        Predictor.open(place / "unguided", device="cud")


# ---- maps


@pytest.mark.parametrize("name", ["guided", "unguided", "stained"])
def test_a_training_image_gets_the_maps_of_a_report(place: Path, name: str) -> None:
    run = Run.open(place / name)
    predictor = Predictor.open(place / name, device="cpu", threads=1)
    for expected in run.predict(run.split.test[:2], device="cpu"):
        tiled = predictor.prediction_for(ArraySlide(native(expected.sample.id))).tiled

        (maps,) = map_rows(tiled, predictor.tile_model, everything=True, progress=silent)

        np.testing.assert_allclose(maps[0], expected.probability, atol=2e-5)
        if expected.distance is not None:
            np.testing.assert_allclose(maps[1], expected.distance, atol=2e-5)


@pytest.mark.parametrize("name", ["guided", "unguided"])
def test_a_training_image_gets_the_nuclei_of_a_report_on_native_images(place: Path, name: str) -> None:
    run = Run.open(place / name)
    predictor = Predictor.open(place / name, device="cpu", threads=1, everything=True)
    (expected,) = run.predict(run.split.test[:1], device="cpu")
    maps = [
        None if values is None else restore(values, (NATIVE_PX, NATIVE_PX))
        for values in (expected.probability, expected.distance)
    ]
    wanted = separate(maps[0], run.rule.scaled(NATIVE_PX / SIDE_PX), maps[1])

    found = predictor.segment(native(expected.sample.id))

    assert ((found.instances > 0) == (wanted > 0)).mean() > 0.9995
    assert len(found.nuclei) == pytest.approx(wanted.max(), abs=1)


def test_neither_store_nor_training_images_are_needed(place: Path, tmp_path: Path, drawing: np.ndarray) -> None:
    before = Predictor.open(place / "guided", device="cpu", threads=1).segment(drawing[:200, :200])
    shutil.copytree(place / "guided", tmp_path / "guided")
    (place / "cache").rename(place / "away")
    try:
        after = Predictor.open(tmp_path / "guided", device="cpu", threads=1).segment(drawing[:200, :200])
    finally:
        (place / "away").rename(place / "cache")
    np.testing.assert_array_equal(after.instances, before.instances)


def test_places_may_be_strings(place: Path) -> None:
    predictor = Predictor.open(str(place / "unguided"), device="cpu", threads=1)

    assert predictor.run.name == Run.open(str(place / "unguided"), cache=str(place / "cache")).name == "unguided"
    with pytest.raises(EncoderError, match="nowhere"):
        Predictor.open(str(place / "guided"), weights="nowhere.onnx", device="cpu")


def test_other_weights_are_refused(place: Path, tmp_path: Path) -> None:
    (tmp_path / "other.onnx").write_bytes(b"another encoder")
    with pytest.raises(EncoderError, match="is not the encoder that the network was trained with"):
        Predictor.open(place / "guided", weights=tmp_path / "other.onnx", device="cpu")
    with pytest.raises(ConfigError, match="was trained without guidance"):
        Predictor.open(place / "unguided", weights=tmp_path / "other.onnx", device="cpu")


def test_tiles_have_the_size_of_the_training_images_unless_given(place: Path) -> None:
    assert Predictor.open(place / "unguided", device="cpu").training.tile_px == NATIVE_PX
    given = Predictor.open(place / "unguided", device="cpu", tile_px=2 * NATIVE_PX, trained_mpp=0.5).training
    assert (given.tile_px, given.mpp) == (2 * NATIVE_PX, 0.5)


# ---- what the result must not depend on


@pytest.fixture
def predictor(place: Path, darkness: None) -> Predictor:
    return Predictor.open(place / "unguided", device="cpu", threads=1)


def counted(predictor: Predictor, image: np.ndarray, tiles: tuple[int, int], blocks: tuple[int, int]) -> int:
    tiled = predictor.prediction_for(ArraySlide(image), shift=tiles).tiled
    rows = map_rows(tiled, predictor.tile_model, everything=False, progress=silent)
    return sum(len(band.nuclei) for band in nuclei.bands(tiled, rows, predictor.run.rule, blocks))


def test_counts_agree_within_one_percent_wherever_tiles_and_blocks_begin(
    predictor: Predictor, drawing: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nuclei, "BLOCK_PX", (130, 150))
    whole = counted(predictor, drawing, (0, 0), (0, 0))
    assert whole > 100
    assert counted(predictor, drawing, (0, 0), (47, 90)) == whole
    assert counted(predictor, drawing, (61, 90), (0, 0)) == pytest.approx(whole, rel=0.01)


def test_one_block_and_many_give_the_same_instance_map(
    predictor: Predictor, drawing: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = predictor.segment(drawing)
    monkeypatch.setattr(nuclei, "BLOCK_PX", (70, 80))
    np.testing.assert_array_equal(predictor.segment(drawing).instances, whole.instances)


def test_the_resolution_of_a_scan_does_not_change_the_result(predictor: Predictor, drawing: np.ndarray) -> None:
    """The same tissue scanned at twice the resolution has as many nuclei, each with four times the pixels."""
    native = Predictor(predictor.run, predictor.tile_model, type(predictor.training)(NATIVE_PX, 0.25))
    once = native.segment(drawing, mpp=0.25)
    twice = native.segment(np.kron(drawing, np.ones((2, 2, 1), np.uint8)), mpp=0.125)

    assert len(twice.nuclei) == pytest.approx(len(once.nuclei), rel=0.03)
    assert np.sum(twice.table["area_um2"]) == pytest.approx(np.sum(once.table["area_um2"]), rel=0.02)
    assert once.notes == ()
    for mpp in (4.0, 0.02):
        with pytest.raises(ConfigError, match=r"more than a factor of 8 apart.*--mpp"):
            native.segment(drawing, mpp=mpp)


@pytest.mark.parametrize("size", [(40, 200), (60, 50), (128, 128), (129, 127), (1, 1)])
def test_images_smaller_than_a_tile_are_predicted(
    predictor: Predictor, drawing: np.ndarray, size: tuple[int, int]
) -> None:
    assert predictor.segment(drawing[: size[0], : size[1]]).instances.shape == size


def test_glass_is_skipped_unless_everything_is_requested(predictor: Predictor, drawing: np.ndarray) -> None:
    slide = np.full((420, 1200, 3), 244, np.uint8)
    slide[:, :300] = drawing[:, :300]
    prediction = predictor.prediction_for(ArraySlide(slide))
    list(prediction.bands(silent))
    counts = prediction.tiled.counts
    assert counts.done == prediction.tiled.grid.n_tiles
    assert 0.5 < counts.skipped / counts.done < 0.8

    everything = Predictor(predictor.run, predictor.tile_model, predictor.training, everything=True).prediction_for(
        ArraySlide(slide)
    )
    list(everything.bands(silent))
    assert everything.tiled.counts.skipped == 0


@pytest.mark.parametrize("colour", [(0, 0, 0), (128, 128, 128), (20, 140, 60)], ids=["black", "gray", "pen"])
def test_what_is_not_tissue_is_passed_over_like_glass_unless_everything_is_requested(
    predictor: Predictor, drawing: np.ndarray, colour: Any
) -> None:
    """CLAM #242: a scanner's black was tissue, and nuclei were found in it."""
    glass, other = np.full((420, 1200, 3), 243, np.uint8), np.empty((420, 1200, 3), np.uint8)
    other[:] = colour
    other[:, :700] = glass[:, :700]
    glass[50:380, 40:540] = other[50:380, 40:540] = drawing[50:380, 12:512]

    expected, prediction = predictor.segment(glass), predictor.prediction_for(ArraySlide(other))
    found = np.concatenate([band.instances for band in prediction.bands(silent)])

    np.testing.assert_array_equal(found, expected.instances)
    assert found.max() > 80
    counts = prediction.tiled.counts
    assert counts.tissue.artefact_share == pytest.approx(500 / 1200, abs=0.01)
    assert counts.tissue.share == pytest.approx(330 * 500 / (420 * 1200), rel=0.05)
    assert counts.skipped > 0.3 * counts.done
    everything = Predictor(predictor.run, predictor.tile_model, predictor.training, everything=True)
    assert everything.segment(other).instances[:, 720:].any() == (colour != (128, 128, 128))


def test_a_speck_is_measured_in_microns(predictor: Predictor, drawing: np.ndarray) -> None:
    image = drawing.copy()
    image[100:109, 100:110] = 0

    shares = []
    for mpp in (0.25, 0.125):
        prediction = predictor.prediction_for(ArraySlide(image), mpp)
        list(prediction.bands(silent))
        shares.append(prediction.tiled.counts.tissue.artefact_share)

    assert shares[0] > 0 == shares[1]
    assert "black" not in " ".join(prediction.notes())


def test_no_nucleus_lies_in_black_that_touches_the_tissue(predictor: Predictor, drawing: np.ndarray) -> None:
    rotated = drawing.copy()
    y, x = np.mgrid[: drawing.shape[0], : drawing.shape[1]]
    black = (x + 2 * y < 400) | (x - y > 380)
    rotated[black] = np.random.default_rng(0).integers(0, 12, (black.sum(), 1))
    found, whole = predictor.segment(rotated), predictor.segment(drawing)

    assert not found.instances[black].any()
    inside = ndimage.distance_transform_edt(~black) > 30
    assert (found.instances[inside] > 0).mean() == pytest.approx((whole.instances[inside] > 0).mean(), rel=0.02)


def test_all_tiles_get_the_same_stain_normalisation(place: Path, drawing: np.ndarray) -> None:
    """Fitted tile by tile, overlapping tiles would differ in colour."""
    predictor = Predictor.open(place / "stained", device="cpu", threads=1)
    prediction = predictor.prediction_for(ArraySlide(drawing))
    seen: list[Any] = []
    maps = predictor.tile_model.maps

    def recorded(tiles: Any, regions: Any, tile_px: int) -> Any:
        seen.extend(zip(tiles, regions, strict=True))
        return maps(tiles, regions, tile_px)

    predictor.tile_model.maps = recorded  # type: ignore[method-assign]
    list(prediction.bands(silent))

    canvas = np.zeros_like(drawing)
    for tile, region in seen:
        where = slice(tile.y, tile.y + tile.h), slice(tile.x, tile.x + tile.w)
        overlap = canvas[where].any(axis=2)
        np.testing.assert_array_equal(canvas[where][overlap], region[overlap])
        canvas[where] = region
    assert (canvas != drawing).any()


def test_a_run_with_other_settings_of_its_stain_normalisation_is_refused(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nucseg.data.stain._VERSION", "0")

    with pytest.raises(ConfigError, match=r"normalised by macenko with other settings .*\(stain_version\)"):
        Predictor.open(place / "stained", device="cpu", threads=1)


# ---- what is written


@pytest.fixture
def written(configure: Callable[..., PredictConfig], pyramid: Path, darkness: None) -> Path:
    result = predict(configure(pyramid))
    assert not result.failures, result.failures
    return result.images[0].folder


def test_all_files_agree(written: Path, drawing: np.ndarray) -> None:
    assert sorted(file.name for file in written.iterdir()) == sorted(results.FILES)
    with tifffile.TiffFile(written / "instances.tif") as tiff:
        instances, page = tiff.asarray(), tiff.pages.first
        assert (page.dtype, page.is_tiled, page.compression.name) == (np.uint32, True, "ADOBE_DEFLATE")
        above, below = page.tags["XResolution"].value
        assert (above / below, page.tags["ResolutionUnit"].value) == (20_000, 3)  # pixels a centimetre: 0.5 um each
    features = json.loads((written / "nuclei.geojson").read_text())["features"]
    table = list(csv.DictReader((written / "nuclei.csv").read_text().splitlines()))
    summary = json.loads((written / "summary.json").read_text())

    n = int(instances.max())
    assert n == len(features) == len(table) == summary["n_nuclei"] > 100
    assert instances.shape == drawing.shape[:2]
    area_mm2 = 420 * 512 * 0.0005**2
    assert summary["nuclei_per_mm2"] == pytest.approx(n / area_mm2)
    tissue = np.mean(drawing.min(axis=-1) < 240 * np.exp(-0.15) - 1)
    assert summary["tissue_area_mm2"] == pytest.approx(area_mm2 * tissue, rel=1e-3)
    assert summary["nuclei_per_mm2_tissue"] == pytest.approx(n / (area_mm2 * tissue), rel=1e-3)
    centres = np.array(ndimage.center_of_mass(instances > 0, instances, range(1, n + 1))) + 0.5
    for number, (feature, row) in enumerate(zip(features, table, strict=True), start=1):
        polygon = shapely.from_geojson(json.dumps(feature["geometry"]))
        mask = instances == number
        assert polygon.is_valid
        assert (feature["type"], feature["properties"]["objectType"]) == ("Feature", "detection")
        assert feature["properties"]["classification"]["name"] == "Nucleus"
        assert polygon.area == mask.sum() == float(row["area_px2"]) == 4 * float(row["area_um2"])
        assert int(row["id"]) == feature["properties"]["measurements"]["id"] == number
        np.testing.assert_allclose(
            [float(row["centroid_y_px"]), float(row["centroid_x_px"])], centres[number - 1], atol=1e-3
        )
        assert (polygon.centroid.y, polygon.centroid.x) == pytest.approx(tuple(centres[number - 1]))
    assert len({feature["id"] for feature in features}) == n


def test_the_overlay_is_the_image_with_white_outlines(written: Path, drawing: np.ndarray) -> None:
    overlay = np.asarray(Image.open(written / "overlay.jpg")).astype(int)
    instances = tifffile.imread(written / "instances.tif")
    inside = ndimage.grey_erosion(instances, 5) == ndimage.grey_dilation(instances, 5)
    edge = (instances > 0) & (ndimage.grey_erosion(instances, footprint=[[0, 1, 0], [1, 1, 1], [0, 1, 0]]) != instances)
    assert np.abs(overlay - drawing)[inside].mean() < 6
    assert overlay[edge].mean() > 225


def test_the_configuration_is_written_as_a_recipe(written: Path, pyramid: Path) -> None:
    from nucseg_pipeline.config.recipe import load_recipe

    assert load_recipe(written / "config.toml", "predict")["images"] == [str(pyramid)]


def test_results_are_kept_unless_files_are_missing_or_options_differ(
    written: Path, configure: Callable[..., PredictConfig], pyramid: Path
) -> None:
    stamp = (written / "instances.tif").stat().st_mtime_ns
    (again,) = predict(configure(pyramid)).images
    assert (again.was_there, (written / "instances.tif").stat().st_mtime_ns) == (True, stamp)

    (written / "nuclei.csv").unlink()
    repaired = predict(configure(pyramid))
    assert (repaired.images[0].was_there, repaired.notes) == (False, ())
    changed = predict(configure(pyramid, mpp=0.25))
    assert changed.notes == (f"Earlier results of another image, run or options were replaced: {written.name}.",)
    (other,) = changed.images
    assert (other.was_there, other.summary["mpp"]) == (False, 0.25)
    assert [entry.name for entry in written.parent.iterdir()] == [written.name]


def test_a_slide_whose_other_files_have_changed_is_predicted_again(
    configure: Callable[..., PredictConfig], pyramid: Path
) -> None:
    slide = pyramid.rename(pyramid.with_name("slide.mrxs"))  # whose pixels would be in a folder of that name
    part = slide.with_suffix("") / "Data0001.dat"
    part.parent.mkdir()
    part.write_bytes(b"one")
    config = configure(slide)
    first, again = (predict(config).images[0] for _ in range(2))

    part.write_bytes(b"two")
    changed = predict(config).images[0]

    assert (first.was_there, again.was_there, changed.was_there) == (False, True, False)
    assert changed.summary["asked"]["image"] != first.summary["asked"]["image"]


def test_an_image_without_nuclei_has_all_files(configure: Callable[..., PredictConfig], tmp_path: Path) -> None:
    Image.new("RGB", (300, 200), (244, 244, 244)).save(tmp_path / "glass.png")
    (image,) = predict(configure(tmp_path / "glass.png")).images
    assert image.summary["n_nuclei"] == 0
    assert json.loads((image.folder / "nuclei.geojson").read_text())["features"] == []
    assert (image.folder / "nuclei.csv").read_text() == "id\n"
    assert tifffile.imread(image.folder / "instances.tif").max() == 0


def test_if_an_image_fails_the_others_are_still_predicted(
    configure: Callable[..., PredictConfig], tmp_path: Path, drawing: np.ndarray
) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n damaged")
    Image.fromarray(drawing[:150, :150]).save(folder / "b.png")
    result = predict(configure(folder))
    assert [image.name for image in result.images] == ["b"]
    assert "a.png" in result.failures["a"]
    assert sorted(entry.name for entry in (tmp_path / "out").iterdir()) == ["b"]


def test_images_of_one_name_and_places_without_images_are_refused(
    configure: Callable[..., PredictConfig], tmp_path: Path, drawing: np.ndarray
) -> None:
    for name in ("empty", "other"):
        (tmp_path / name).mkdir()
    for name in ("a.png", "other/a.png"):
        Image.fromarray(drawing[:50, :50]).save(tmp_path / name)
    for images, message in {
        (tmp_path / "a.png", tmp_path / "other"): "would both be written to a folder a",
        (tmp_path / "empty",): "There is no image in .*empty: found nothing",
        (tmp_path / "none.png",): "There is no image .*none.png",
    }.items():
        with pytest.raises(ConfigError, match=message):
            predict(configure(*images))


# ---- interrupted


def contents(folder: Path) -> dict[str, Any]:
    """The files of a result; of the summary, what does not change from run to run."""
    files: dict[str, Any] = {file.name: file.read_bytes() for file in folder.iterdir()}
    summary = json.loads(files["summary.json"])
    del summary["seconds"]
    return {**files, "summary.json": summary}


def interrupted(config: PredictConfig, n_tiles: int) -> KeyboardInterrupt:
    """Stop a prediction, as Ctrl-C does, once that many tiles are done; returns the interrupt."""

    def stop(done: int, total: int, image: str) -> None:
        if done >= n_tiles:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        predict(config, stop)
    return caught.value


def tiles_predicted(config: PredictConfig, monkeypatch: pytest.MonkeyPatch) -> int:
    """Predict images and count the tiles that the network sees."""
    counted = []
    maps = TileModel.maps
    with monkeypatch.context() as patched:
        patched.setattr(TileModel, "maps", lambda self, tiles, *rest: counted.extend(tiles) or maps(self, tiles, *rest))
        assert not predict(config).failures
    return len(counted)


@pytest.mark.parametrize("run", ["guided", "unguided", "stained"])
def test_an_interrupted_image_continues_after_its_last_finished_row_with_the_same_result(
    configure: Callable[..., PredictConfig], place: Path, pyramid: Path, run: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configure(pyramid, run=place / run, everything=True)
    whole = replace(config, out=config.out.with_name("whole"))
    n_tiles = tiles_predicted(whole, monkeypatch)
    n_rows = 6  # of 420 px in tiles of 128 px that overlap by half
    n_columns = n_tiles // n_rows

    interrupt = interrupted(config, 3 * n_columns + 2)

    assert [file.name for file in config.out.iterdir()] == [".a [slide].part"]
    assert re.search(
        r"a \[slide\]: 3 finished rows of tiles, .* MiB, kept in .*\.a \[slide\]\.part", interrupt.__notes__[0]
    )
    interrupted(config, 4 * n_columns + 1)  # again, one row later
    assert tiles_predicted(config, monkeypatch) == 2 * n_columns
    assert [file.name for file in config.out.iterdir()] == ["a [slide]"]
    expected = contents(whole.out / "a [slide]")
    found = contents(config.out / "a [slide]")
    for name in ("command", "image"):
        del expected["summary.json"][name], found["summary.json"][name]
    del expected["config.toml"], found["config.toml"]  # they name the folder
    assert found == expected


def test_glass_is_skipped_and_counted_after_an_interrupt_as_before(
    configure: Callable[..., PredictConfig], tmp_path: Path, drawing: np.ndarray, darkness: None
) -> None:
    slide = np.full((420, 512, 3), 244, np.uint8)
    slide[:, :200] = drawing[:, :200]
    Image.fromarray(slide).save(tmp_path / "half.png")
    config = configure(tmp_path / "half.png")
    (whole,) = predict(replace(config, out=config.out.with_name("whole"))).images
    assert whole.summary["tiles_without_tissue"] > 5

    interrupted(config, whole.summary["tiles"] // 2)
    (image,) = predict(config).images

    for name in ("tiles", "tiles_without_tissue", "n_nuclei"):
        assert image.summary[name] == whole.summary[name]


def test_rows_of_another_request_are_not_used(
    configure: Callable[..., PredictConfig], pyramid: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configure(pyramid, everything=True)
    interrupted(config, 20)

    whole = replace(config, mpp=0.25, out=config.out.with_name("whole"))
    assert tiles_predicted(replace(config, mpp=0.25), monkeypatch) == tiles_predicted(whole, monkeypatch)
    assert [file.name for file in config.out.iterdir()] == ["a [slide]"]


def test_the_command_says_what_is_kept(
    place: Path, pyramid: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    maps, calls = TileModel.maps, []

    def stop_later(self: TileModel, *rest: Any) -> Any:
        calls.append(rest)
        if len(calls) > 12:
            raise KeyboardInterrupt
        return maps(self, *rest)

    monkeypatch.setattr(TileModel, "maps", stop_later)

    stopped = command(pyramid, "--run", place / "unguided", "--out", tmp_path / "out", "--everything")

    assert stopped.exit_code == 130
    message = " ".join(stopped.stderr.split())
    assert re.search(r"Interrupted\. a \[slide\]: \d finished rows of tiles, .* MiB, kept in .* continue\.", message)


@pytest.mark.parametrize("name", ["overlay.jpg", "summary.json"])
def test_a_file_that_cannot_be_written_leaves_finished_rows_and_no_partial_result(
    configure: Callable[..., PredictConfig], pyramid: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configure(pyramid, everything=True)

    def obstruct(done: int, total: int, image: str) -> None:
        (config.out / f".{image}.part" / name).mkdir(parents=True, exist_ok=True)

    (message,) = predict(config, lambda *progress: obstruct(*progress) if progress[0] else None).failures.values()

    assert "Is a directory" in message
    assert "choose another folder with --out" in message
    assert "5 finished rows of tiles" in message
    (draft,) = config.out.iterdir()
    (rows,) = draft.iterdir()
    assert all(re.match("row|blend|state", file.name) for file in rows.iterdir())
    n_tiles = tiles_predicted(replace(config, out=config.out.with_name("whole")), monkeypatch)
    assert tiles_predicted(config, monkeypatch) == n_tiles / 6
    assert [folder.name for folder in config.out.iterdir()] == ["a [slide]"]


def test_damaged_rows_are_deleted(configure: Callable[..., PredictConfig], pyramid: Path) -> None:
    config = configure(pyramid, everything=True)
    interrupted(config, 20)
    next(config.out.rglob("row-00000")).write_bytes(b"damaged")

    (message,) = predict(config).failures.values()

    assert "All kept rows of this image were deleted" in message
    assert not list(config.out.rglob("*"))
    assert not predict(config).failures


def test_two_processes_cannot_write_the_same_result(configure: Callable[..., PredictConfig], pyramid: Path) -> None:
    config = configure(pyramid)
    draft = config.out / ".a [slide].part"
    draft.mkdir(parents=True)
    with locked(draft):
        (message,) = predict(config).failures.values()

    assert "Another process is writing to" in message


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"mpp": 250.0}, "mpp is in microns per pixel"),
        ({"trained_mpp": 0.0}, "trained_mpp is in microns per pixel"),
        ({"overlap": 0.9}, "overlap is a fraction"),
        ({"tile_px": 2}, "tile_px must be at least 16"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"images": ()}, "nothing to predict"),
    ],
)
def test_invalid_options_are_refused(wanted: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        PredictConfig(**{"images": (Path("a.png"),), "run": Path("run"), "out": Path("out"), **wanted})


# ---- the command


def command(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["predict", *map(str, arguments), "--device", "cpu", "--threads", "1"])


def test_the_command_prints_what_it_found_and_what_it_kept(
    place: Path, pyramid: Path, tmp_path: Path, darkness: None
) -> None:
    given = (pyramid, "--run", place / "unguided", "--out", tmp_path / "out")
    first, second = command(*given), command(*given)
    assert first.exit_code == second.exit_code == 0, first.output
    n = json.loads((tmp_path / "out" / "a [slide]" / "summary.json").read_text())["n_nuclei"]
    assert f"a [slide]: {n} nuclei (" in first.stdout
    assert "The microns per pixel of the training images are not known" in " ".join(first.stderr.split())
    assert f"a [slide]: already there, {n} nuclei" in second.stdout


def test_the_command_and_the_files_say_what_is_not_tissue_and_which_image_is_not_h_and_e(
    place: Path, drawing: np.ndarray, tmp_path: Path, darkness: None
) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    Image.fromarray(drawing).save(folder / "plain.png")
    Image.fromarray(drawing).convert("L").convert("RGB").save(folder / "gray.png")
    half_black = drawing.copy()
    half_black[:, 200:] = 0
    Image.fromarray(half_black).save(folder / "half.png")
    result = command(folder, "--run", place / "unguided", "--out", tmp_path / "out", "--mpp", 0.5)

    assert result.exit_code == 0, result.output
    printed = " ".join(result.stderr.split())
    assert "note: gray: The image does not look like H&E: it is gray." in printed
    summaries = {
        name: json.loads((tmp_path / "out" / name / "summary.json").read_text()) for name in ("plain", "gray", "half")
    }
    assert ["H&E" in " ".join(summary["notes"]) for summary in summaries.values()] == [False, True, False]
    share = summaries["half"]["artefact_share"]
    assert share == pytest.approx(312 / 512, abs=0.01)
    assert f"note: half: {share:.1%} of the image is black, unscanned or pen and was passed over like glass." in printed
    per_tissue = summaries["half"]["nuclei_per_mm2_tissue"]
    assert f", {per_tissue:.0f} per mm2 of tissue) in" in result.stdout
    assert per_tissue == pytest.approx(summaries["plain"]["nuclei_per_mm2_tissue"], rel=0.25)
    outlines = json.loads((tmp_path / "out" / "half" / "nuclei.geojson").read_text())["features"]
    shapes = [shapely.from_geojson(json.dumps(outline["geometry"])) for outline in outlines]
    assert len(shapes) > 30
    assert max(shape.bounds[2] for shape in shapes) <= 200


def test_the_command_fails_after_predicting_all_other_images(place: Path, pyramid: Path, tmp_path: Path) -> None:
    (tmp_path / "b.png").write_bytes(b"nothing")
    result = command(tmp_path / "b.png", pyramid, "--run", place / "unguided", "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert "a [slide]: " in result.stdout
    assert "error: 1 of 2 images could not be predicted:" in result.stderr
    assert "b.png is not an image" in result.stderr
    assert "Traceback" not in result.output
    alone = command(tmp_path / "b.png", "--run", place / "unguided", "--out", tmp_path / "none")
    assert "error: 1 of 1 images could not be predicted:" in alone.stderr
    assert "others are done" not in alone.stderr
    assert "results:" not in alone.stdout
    assert not (tmp_path / "none").exists()
