"""Files as other programs write them: each prediction is of the right image, in the coordinates that QuPath shows."""

import csv
import json
from collections.abc import Sequence
from math import pi
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from typer.testing import CliRunner

from nucseg.errors import DataError
from nucseg_pipeline.cli import app
from nucseg_pipeline.config import PredictConfig
from nucseg_pipeline.config.recipe import load_recipe
from nucseg_pipeline.predict.predictor import Predictor
from nucseg_pipeline.predict.stage import PredictResult, predict

shapely = pytest.importorskip("shapely")

CENTRES = [(60, 70), (60, 300), (150, 180), (240, 60), (230, 320)]


def dark_nuclei(size: tuple[int, int], centres: Sequence[tuple[int, int]], radius: tuple[float, float]) -> np.ndarray:
    """An image (H, W, 3) of tissue with dark ellipses around centres (y, x) with radii (down, across)."""
    image = np.full((*size, 3), (225, 170, 205), np.uint8)
    y, x = np.mgrid[: size[0], : size[1]] + 0.5
    for centre_y, centre_x in centres:
        inside = ((y - centre_y) / radius[0]) ** 2 + ((x - centre_x) / radius[1]) ** 2 <= 1
        image[inside] = (70, 40, 120)
    return image


def predicted(run: Path, out: Path, *images: Path, **options: Any) -> PredictResult:
    return predict(PredictConfig(images=images, run=run, out=out, device="cpu", threads=1, **options))


def outlines(folder: Path) -> list[Any]:
    features = json.loads((folder / "nuclei.geojson").read_text())["features"]
    return [shapely.from_geojson(json.dumps(feature["geometry"])) for feature in features]


def found_around(folder: Path, centres: list[tuple[int, int]]) -> None:
    """Check that there is exactly one nucleus around each centre, in the outlines and in the instance map."""
    polygons, instances = outlines(folder), tifffile.imread(folder / "instances.tif")
    assert len(polygons) == len(centres) == instances.max()
    for y, x in centres:
        (around,) = (polygon for polygon in polygons if polygon.contains(shapely.Point(x, y)))
        assert around.centroid.distance(shapely.Point(x, y)) < 1.5
        assert instances[y, x] > 0


# ---- bounds


def leica_slide(file: Path, image: np.ndarray, corner: tuple[int, int], canvas: tuple[int, int]) -> Path:
    """A Leica slide of one region, at a corner (y, x) of a canvas (H, W); a pixel is 500 nm."""

    def element(name: str, page: int, size: tuple[int, int], view: tuple[int, ...], power: int) -> str:
        h, w, y, x = view
        return (
            f'<image name="{name}" uuid="urn:uuid:{page}"><creationDate>2020-01-01T00:00:00Z</creationDate><device '
            f'model="m" version="1"/><pixels sizeX="{size[1]}" sizeY="{size[0]}"><dimension sizeX="{size[1]}" '
            f'sizeY="{size[0]}" r="0" ifd="{page}"/></pixels><view sizeX="{w * 500}" sizeY="{h * 500}" '
            f'offsetX="{x * 500}" offsetY="{y * 500}" spacingZ="0"/><scanSettings><objectiveSettings><objective>{power}'
            "</objective></objectiveSettings><illuminationSettings><numericalAperture>0.6</numericalAperture>"
            "<illuminationSource>brightfield</illuminationSource></illuminationSettings></scanSettings></image>"
        )

    overview = np.full((96, 128, 3), 240, np.uint8)
    xml = (
        '<?xml version="1.0"?><scn xmlns="http://www.leica-microsystems.com/scn/2010/10/01" uuid="urn:uuid:9">'
        f'<collection name="c" uuid="urn:uuid:8" sizeX="{canvas[1] * 500}" sizeY="{canvas[0] * 500}">'
        "<barcode>none</barcode>"
        + element("main", 0, image.shape[:2], (*image.shape[:2], *corner), 20)
        + element("macro", 1, (96, 128), (*canvas, 0, 0), 1)
        + "</collection></scn>"
    )
    with tifffile.TiffWriter(file, bigtiff=True) as tiff:
        options: dict[str, Any] = {"photometric": "rgb", "compression": "zlib", "metadata": None}
        tiff.write(image, tile=(128, 128), description=xml, **options)
        tiff.write(overview, tile=(64, 64), **options)
    return file


def test_outlines_lie_on_the_nuclei_that_qupath_shows(dark_run: Path, tmp_path: Path) -> None:
    """qupath #1278, FAST-Pathology #76, dlup #160: QuPath opens only the box of openslide.bounds-*."""
    openslide = pytest.importorskip("openslide")
    file = leica_slide(tmp_path / "region.scn", dark_nuclei((384, 512), CENTRES, (12, 12)), (256, 512), (768, 1024))
    with openslide.OpenSlide(str(file)) as slide:
        assert (slide.properties["openslide.bounds-x"], slide.properties["openslide.bounds-y"]) == ("512", "256")

    (image,) = predicted(dark_run, tmp_path / "out", file).images

    found_around(image.folder, CENTRES)
    assert (image.summary["width_px"], image.summary["height_px"]) == (512, 384)
    assert image.summary["origin_px"] == [512, 256]
    assert image.summary["reader"] == "openslide"


# ---- scenes


def scene_file(file: Path, *images: tuple[str, np.ndarray], mpp: tuple[float, float] = (0.5, 0.5)) -> Path:
    with tifffile.TiffWriter(file, ome=True) as tiff:
        for name, image in images:
            sizes = {"PhysicalSizeY": mpp[0], "PhysicalSizeX": mpp[1]}
            metadata = {"axes": "YXS", "Name": name, **sizes}
            tiff.write(image, photometric="rgb", tile=(128, 128), compression="zlib", metadata=metadata)
    return file


@pytest.fixture
def two_scenes(tmp_path: Path) -> Path:
    first, second = (dark_nuclei((300, 400), centres, (12, 12)) for centres in (CENTRES, CENTRES[:3]))
    return scene_file(tmp_path / "a.ome.tif", ("left", first), ("right", second))


def test_every_scene_is_predicted_under_its_own_name(dark_run: Path, tmp_path: Path, two_scenes: Path) -> None:
    """tiatoolbox #834: one of two scenes was dropped without a word."""
    result = predicted(dark_run, tmp_path / "out", two_scenes)

    assert [image.name for image in result.images] == ["a_left", "a_right"]
    found_around(tmp_path / "out" / "a_left", CENTRES)
    found_around(tmp_path / "out" / "a_right", CENTRES[:3])
    assert [image.summary["scene"] for image in result.images] == ["left", "right"]
    assert all(image.was_there for image in predicted(dark_run, tmp_path / "out", two_scenes).images)


@pytest.mark.parametrize("scene", ["right", "2"])
def test_a_scene_can_be_chosen(scene: str, dark_run: Path, tmp_path: Path, two_scenes: Path) -> None:
    place = ["--run", dark_run, "--out", tmp_path / "out", "--device", "cpu", "--threads", "1"]
    done = CliRunner().invoke(app, list(map(str, ["predict", two_scenes, "--scene", scene, *place])))
    assert done.exit_code == 0, done.output
    assert "a_right: 3 nuclei" in done.stdout
    assert [folder.name for folder in (tmp_path / "out").iterdir()] == ["a_right"]

    failed = CliRunner().invoke(app, list(map(str, ["predict", two_scenes, "--scene", "up", *place])))
    assert failed.exit_code == 1
    assert "has 2 scenes (left, right): there is no 'up'" in " ".join(failed.stderr.split())


def test_one_of_several_scenes_must_be_named_in_python(dark_run: Path, two_scenes: Path) -> None:
    predictor = Predictor.open(dark_run, device="cpu", threads=1)
    with pytest.raises(DataError, match=r"has 2 scenes \(left, right\)"):
        predictor.segment(two_scenes)
    for scene in ("right", 2):
        assert len(predictor.segment(two_scenes, scene=scene).nuclei) == 3


def test_the_number_of_a_scene_may_be_a_number(dark_run: Path, tmp_path: Path, two_scenes: Path) -> None:
    (image,) = predicted(dark_run, tmp_path / "out", two_scenes, scene=2).images
    assert (image.name, image.summary["scene"]) == ("a_right", "right")
    assert "--scene 2" in image.summary["command"]
    recipe = tmp_path / "predict.toml"
    recipe.write_text("[predict]\nscene = 2\n")
    assert load_recipe(recipe, "predict") == {"scene": 2}


def test_a_scene_does_not_overwrite_another_image(dark_run: Path, tmp_path: Path, two_scenes: Path) -> None:
    other = scene_file(tmp_path / "a_left.ome.tif", ("", dark_nuclei((300, 400), CENTRES, (12, 12))))
    result = predicted(dark_run, tmp_path / "out", two_scenes, other)
    assert [image.name for image in result.images] == ["a_left"]
    assert "would both be written to a folder a_left" in result.failures["a"]


# ---- pixels that are not square


@pytest.mark.parametrize("mpp", [(1.0, 0.5), (0.5, 1.0), (0.4, 0.5)])
def test_pixels_that_are_not_square_are_measured_with_both_sides(mpp: Any, dark_run: Path, tmp_path: Path) -> None:
    """ashlar #122, wsidicomizer #137: areas and densities were computed with one side squared."""
    radius_um = 8.0
    image = dark_nuclei((300, 400), CENTRES, (radius_um / mpp[0], radius_um / mpp[1]))
    file = scene_file(tmp_path / "a.ome.tif", ("", image), mpp=mpp)

    (result,) = predicted(dark_run, tmp_path / "out", file).images

    found_around(result.folder, CENTRES)
    summary = result.summary
    assert (summary["mpp"], summary["mpp_x"], summary["mpp_y"]) == (None, mpp[1], mpp[0])
    assert (summary["mpp_of_file_x"], summary["mpp_of_file_y"]) == (mpp[1], mpp[0])
    assert summary["scale_y"] / summary["scale_x"] == pytest.approx(mpp[0] / mpp[1])
    assert summary["levels"] == [{"width_px": 400, "height_px": 300}]
    assert summary["area_mm2"] == pytest.approx(300 * 400 * mpp[0] * mpp[1] / 1e6)
    assert summary["nuclei_per_mm2"] == pytest.approx(5 / summary["area_mm2"])
    assert f"Pixels are {mpp[1]:g} x {mpp[0]:g} microns" in " ".join(summary["notes"])
    for row, polygon in zip(
        csv.DictReader((result.folder / "nuclei.csv").read_text().splitlines()), outlines(result.folder), strict=True
    ):
        assert float(row["area_um2"]) == pytest.approx(polygon.area * mpp[0] * mpp[1], abs=1e-3)
        assert float(row["area_um2"]) == pytest.approx(pi * radius_um**2, rel=0.1)
        assert float(row["perimeter_um"]) == pytest.approx(2 * pi * radius_um, rel=0.1)
        assert float(row["eccentricity"]) < 0.45
        assert float(row["centroid_x_um"]) == pytest.approx(polygon.centroid.x * mpp[1], abs=0.5)
        assert float(row["centroid_y_um"]) == pytest.approx(polygon.centroid.y * mpp[0], abs=0.5)
    with tifffile.TiffFile(result.folder / "instances.tif") as tiff:
        densities = [tiff.pages.first.tags[name].value for name in ("YResolution", "XResolution")]
        assert [10_000 * below / above for above, below in densities] == pytest.approx(mpp)


def test_the_shape_of_pixels_does_not_change_the_nuclei(dark_run: Path, tmp_path: Path) -> None:
    """The same tissue with half as many rows has the same nuclei, of the same areas."""
    image = dark_nuclei((300, 400), CENTRES, (14, 14))
    predictor = Predictor.open(dark_run, device="cpu", threads=1, trained_mpp=0.5)
    square = predictor.segment(scene_file(tmp_path / "a.ome.tif", ("", image)))
    rows = image.reshape(150, 2, 400, 3).mean(axis=1).astype(np.uint8)
    wide = predictor.segment(scene_file(tmp_path / "b.ome.tif", ("", rows), mpp=(1.0, 0.5)))

    assert (square.mpp, wide.mpp, wide.mpp_yx) == (0.5, None, (1.0, 0.5))
    assert len(wide.nuclei) == len(square.nuclei) == 5
    np.testing.assert_allclose(wide.table["area_um2"], square.table["area_um2"], rtol=0.06)
    np.testing.assert_allclose(wide.table["perimeter_um"], square.table["perimeter_um"], rtol=0.1)


def test_a_note_says_which_images_it_concerns(dark_run: Path, tmp_path: Path) -> None:
    image = dark_nuclei((300, 400), CENTRES, (12, 12))
    for name, orientation in (("turned", 6), ("plain", 1)):
        tags = [(274, "H", 1, orientation, True)]
        tifffile.imwrite(tmp_path / f"{name}.tif", image, photometric="rgb", metadata=None, extratags=tags)
    files = [tmp_path / "turned.tif", tmp_path / "plain.tif"]
    words = ["predict", *files, "--run", dark_run, "--out", tmp_path / "out", "--device", "cpu", "--threads", "1"]

    done = CliRunner().invoke(app, list(map(str, words)))

    lines = " ".join(done.stderr.split())
    assert "note: turned: The file's Orientation tag is 6." in lines
    assert "note: The microns per pixel of the image and of the training images are not known" in lines
    found_around(tmp_path / "out" / "turned", CENTRES)


# ---- more than 8 bits


def test_16_bit_images_are_predicted_if_a_conversion_is_asked_for(dark_run: Path, tmp_path: Path) -> None:
    deep = dark_nuclei((300, 400), CENTRES, (12, 12)).astype(np.uint16) * 257
    tifffile.imwrite(tmp_path / "a.tif", deep, photometric="rgb", tile=(128, 128))

    (reason,) = predicted(dark_run, tmp_path / "out", tmp_path / "a.tif").failures.values()
    assert "16-bit unsigned pixels" in reason
    assert "--convert full-range" in reason

    (image,) = predicted(dark_run, tmp_path / "out", tmp_path / "a.tif", convert="full-range").images
    found_around(image.folder, CENTRES)
    assert image.summary["convert"] == "full-range"
    assert "--convert full-range" in image.summary["command"]


def test_predict_converts_images_as_those_of_the_training(dark_run_on_converted_images: Path, tmp_path: Path) -> None:
    deep = dark_nuclei((300, 400), CENTRES, (12, 12)).astype(np.uint16) * 257
    tifffile.imwrite(tmp_path / "a.tif", deep, photometric="rgb")

    (image,) = predicted(dark_run_on_converted_images, tmp_path / "out", tmp_path / "a.tif").images

    found_around(image.folder, CENTRES)
    refused = predicted(dark_run_on_converted_images, tmp_path / "out2", tmp_path / "a.tif", convert="none")
    assert list(refused.failures) == ["a"]
