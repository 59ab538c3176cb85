"""Any region of an image of any size equals that part of the decoded image."""

import contextlib
import io
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
from PIL import Image

from nucseg.data import prepare_image
from nucseg.data.slides import ArraySlide, open_slide
from nucseg.data.slides.openslide_reader import ScannerSlide
from nucseg.data.slides.tiff import TiffSlide
from nucseg.errors import DataError

H, W = 300, 421
RNG = np.random.default_rng(0)
SMOOTH = np.asarray(
    Image.fromarray(RNG.integers(0, 256, (20, 28, 3), dtype=np.uint8)).resize((W, H), Image.Resampling.BICUBIC)
)
REGIONS = [(0, 0, H, W), (10, 20, 40, 60), (250, 300, 50, 121), (127, 255, 3, 2)]

KINDS = {
    "tiles": {"tile": (64, 48)},
    "packed tiles": {"tile": (64, 64), "compression": "zlib"},
    "strips": {"rowsperstrip": 16},
    "packed strips": {"rowsperstrip": 37, "compression": "zlib"},
    "one strip": {},
    "planes": {"planarconfig": "separate", "tile": (64, 64), "compression": "zlib"},
    "big": {"bigtiff": True, "tile": (64, 64)},
    "big-endian": {"byteorder": ">", "tile": (64, 64)},
}


def written(file: Path, image: np.ndarray, **options: object) -> Path:
    opening = {name: options.pop(name) for name in ("bigtiff", "byteorder", "ome") if name in options}
    if options.get("planarconfig") == "separate":
        image = np.moveaxis(image, 2, 0)
    photometric = options.pop("photometric", "rgb")
    with tifffile.TiffWriter(file, **opening) as tiff:
        tiff.write(image, photometric=photometric, metadata=None, **options)
    return file


@pytest.fixture(params=KINDS)
def tiff(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return written(tmp_path / "a.tif", SMOOTH, **KINDS[request.param])


@pytest.mark.parametrize("region", REGIONS)
def test_a_region_of_a_tiff_has_the_pixels_that_were_written(tiff, region) -> None:
    y, x, h, w = region
    slide = TiffSlide(tiff)
    assert slide.size == (H, W)
    np.testing.assert_array_equal(slide.read(*region), SMOOTH[y : y + h, x : x + w])
    slide.close()


@pytest.mark.parametrize("grid", [(150, 210), (100, 140), (600, 842), (299, 420)])
def test_tiles_at_a_scale_fit_together_without_seams(grid, tmp_path) -> None:
    slide = TiffSlide(written(tmp_path / "a.tif", SMOOTH, tile=(64, 64)))
    whole = slide.read(0, 0, *grid, grid=grid)
    for y, x in ((0, 0), (31, 47), (grid[0] - 40, grid[1] - 50)):
        np.testing.assert_array_equal(slide.read(y, x, 40, 50, grid=grid), whole[y : y + 40, x : x + 50])
    slide.close()


def test_a_reduced_image_is_the_one_that_preparation_makes() -> None:
    image = SMOOTH[:, :300]
    expected = prepare_image(image, side_px=128)
    reduced = ArraySlide(image).read(0, 0, 128, 128, grid=(128, 128))
    assert np.abs(reduced.astype(int) - expected).max() <= 1  # halves are rounded in different precisions


@pytest.fixture
def pyramid(tmp_path: Path) -> Path:
    """A pyramid whose smaller levels are darker, to distinguish them."""
    file = tmp_path / "pyramid.ome.tif"
    with tifffile.TiffWriter(file, ome=True) as tiff:
        options = {"photometric": "rgb", "tile": (64, 64)}
        metadata = {"axes": "YXS", "PhysicalSizeX": 0.5, "PhysicalSizeXUnit": "µm"}
        tiff.write(np.full((512, 640, 3), 200, np.uint8), subifds=2, metadata=metadata, **options)
        tiff.write(np.full((256, 320, 3), 100, np.uint8), subfiletype=1, **options)
        tiff.write(np.full((128, 160, 3), 50, np.uint8), subfiletype=1, **options)
    return file


@pytest.mark.parametrize(
    ("grid", "value"), [((512, 640), 200), ((300, 375), 200), ((256, 320), 100), ((200, 250), 100), ((64, 80), 50)]
)
def test_the_smallest_level_that_is_large_enough_is_read(pyramid, grid, value) -> None:
    slide = open_slide(pyramid)
    assert (slide.levels, slide.mpp) == ([(512, 640), (256, 320), (128, 160)], (0.5, 0.5))
    assert (slide.read(10, 20, 30, 40, grid=grid) == value).all()
    slide.close()


@pytest.mark.parametrize(
    ("options", "mpp"),
    [
        ({"resolution": (40_000, 40_000), "resolutionunit": "CENTIMETER"}, 0.25),
        ({"resolution": (50_800, 50_800), "resolutionunit": "INCH"}, 0.5),
        ({"resolution": (72, 72), "resolutionunit": "INCH"}, None),
        ({"resolution": (1, 1)}, None),
        ({"description": "Aperio Image Library v1\n1x1|AppMag = 40|MPP = 0.2525|Left = 1"}, 0.2525),
        ({"description": "Aperio|MPP = ?"}, None),
        ({"description": "ImageJ=1.53\nunit=micron\n", "resolution": (2, 2)}, 0.5),
        ({"description": '<OME><Pixels PhysicalSizeX="250" PhysicalSizeXUnit="nm"/></OME>'}, 0.25),
        ({"description": '<OME><Pixels PhysicalSizeX="0.3"/></OME>'}, 0.3),
        ({"description": '<OME><Pixels PhysicalSizeX="1" PhysicalSizeXUnit="pixel"/></OME>'}, None),
    ],
)
def test_microns_per_pixel_are_read_from_the_file_if_plausible(options, mpp, tmp_path) -> None:
    slide = open_slide(written(tmp_path / "a.tif", SMOOTH, **options))
    slide.close()
    assert slide.mpp == (None if mpp is None else pytest.approx((mpp, mpp)))


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg"])
def test_small_images_are_decoded_like_those_of_data_sets(suffix, tmp_path) -> None:
    Image.fromarray(SMOOTH).save(tmp_path / f"a{suffix}")
    slide = open_slide(tmp_path / f"a{suffix}")
    assert slide.reader == ("tifffile" if suffix == ".tif" else "pillow")
    np.testing.assert_array_equal(slide.read(0, 0, H, W), np.asarray(Image.open(tmp_path / f"a{suffix}")))
    slide.close()


def test_gray_inverted_and_transparent_tiffs_become_rgb_on_white(tmp_path) -> None:
    gray, alpha = SMOOTH[..., 0], np.zeros((H, W), np.uint8)
    alpha[:100] = 255
    cases = {
        "minisblack": (gray, np.repeat(gray[..., None], 3, 2)),
        "miniswhite": (gray, 255 - np.repeat(gray[..., None], 3, 2)),
    }
    for photometric, (stored, expected) in cases.items():
        slide = TiffSlide(written(tmp_path / f"{photometric}.tif", stored, photometric=photometric, tile=(64, 64)))
        np.testing.assert_array_equal(slide.read(0, 0, H, W), expected)
        slide.close()
    slide = TiffSlide(
        written(tmp_path / "a.tif", np.dstack([SMOOTH, alpha]), extrasamples=["unassalpha"], tile=(64, 64))
    )
    pixels = slide.read(0, 0, H, W)
    slide.close()
    np.testing.assert_array_equal(pixels[:100], SMOOTH[:100])
    assert (pixels[100:] == 255).all()


def test_a_jpeg_pyramid_is_read_alike_by_tifffile_and_openslide(tmp_path) -> None:
    pytest.importorskip("imagecodecs")
    pytest.importorskip("openslide")
    file = tmp_path / "slide.svs"
    description = "Aperio Image Library v1.0\n421x300 (256x256) |AppMag = 40|MPP = 0.2500"
    options = {"photometric": "rgb", "tile": (256, 256), "compression": "jpeg", "metadata": None}
    with tifffile.TiffWriter(file) as tiff:
        tiff.write(SMOOTH, description=description, **options)
        tiff.write(SMOOTH[::4, ::4], description=description, **options)

    scanned = open_slide(file)
    assert isinstance(scanned, ScannerSlide)
    assert scanned.mpp == (0.25, 0.25)
    by_tifffile = TiffSlide(file)
    assert by_tifffile.mpp == (0.25, 0.25)
    for slide in (scanned, by_tifffile):
        read = slide.read(10, 20, 200, 300)
        assert np.abs(read.astype(int) - SMOOTH[10:210, 20:320]).mean() < 6
        slide.close()


@pytest.mark.parametrize(
    ("image", "options", "message"),
    [
        (SMOOTH.astype(np.uint16) * 256, {}, "16-bit .*pixels"),
        (SMOOTH[..., 0].astype(np.int8), {"photometric": "minisblack"}, "signed|int8"),
        (np.zeros((5, 90, 90), np.uint8), {"photometric": "minisblack"}, "planes|pages"),
    ],
)
def test_an_image_that_is_not_8_bit_rgb_or_gray_is_refused(image, options, message, tmp_path) -> None:
    file = written(tmp_path / "a.tif", image, **{"photometric": "rgb", **options})
    for reader in (open_slide, TiffSlide):
        with pytest.raises(DataError, match=message):
            reader(file)


def test_a_png_that_is_too_large_is_refused_before_it_is_decoded(tmp_path) -> None:
    header = io.BytesIO()
    Image.new("1", (10_000, 10_000)).save(header, "png")
    (tmp_path / "a.png").write_bytes(header.getvalue())
    with pytest.raises(DataError, match=r"10000 x 10000 pixels.*decoded as a whole.*tiled TIFF"):
        open_slide(tmp_path / "a.png")


def test_a_chunk_that_is_too_large_is_refused(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("nucseg.data.slides.tiff.MAX_CHUNK_BYTES", 1000)
    with pytest.raises(DataError, match=r"chunks of 421 x 300 pixels.*Convert it to a tiled TIFF"):
        TiffSlide(written(tmp_path / "a.tif", SMOOTH, compression="zlib", rowsperstrip=H))


@pytest.mark.parametrize("options", [{}, {"tile": (64, 64), "compression": "zlib"}], ids=["raw", "packed"])
def test_a_truncated_tiff_raises_one_clear_error(options, tmp_path) -> None:
    file = written(tmp_path / "a.tif", np.tile(SMOOTH, (4, 4, 1)), **options)
    whole = file.read_bytes()
    assert int.from_bytes(whole[4:8], "little") < 100  # the directory comes first
    file.write_bytes(whole[: len(whole) // 2])
    with contextlib.closing(TiffSlide(file)) as slide, pytest.raises(DataError, match="cannot be read"):
        slide.read(1000, 1000, 150, 400)


@pytest.mark.parametrize(("name", "content"), [("a.png", b"no image"), ("a.tif", b"II*\0"), ("a.svs", b"nothing")])
def test_other_files_are_refused(name, content, tmp_path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=name):
        open_slide(tmp_path / name)


def test_a_missing_file_and_a_folder_are_refused(tmp_path) -> None:
    for place in (tmp_path / "none.png", tmp_path):
        with pytest.raises(DataError, match="cannot be read"):
            open_slide(place)


def test_without_openslide_a_slide_that_is_a_tiff_is_read_by_tifffile(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("nucseg.data.slides.factory.openslide_library", lambda: None)
    slide = open_slide(written(tmp_path / "a.svs", SMOOTH, tile=(64, 64)))
    assert slide.reader == "tifffile"
    slide.close()
    (tmp_path / "b.mrxs").write_bytes(b"no TIFF")
    with pytest.raises(DataError, match=r"pip install 'nucseg\[slides\]'"):
        open_slide(tmp_path / "b.mrxs")


@pytest.mark.parametrize(
    "options", [{"extratags": [(274, "H", 1, 6, True)]}, {"compression": "lzma"}, {"compression": "jpeg2000"}]
)
def test_a_plain_tiff_has_the_same_pixels_under_the_suffix_of_a_scanner(options, tmp_path) -> None:
    """OpenSlide turns a plain TIFF by its Orientation tag, and knows fewer codecs."""
    for name in ("a.tif", "a.svs"):
        slide = open_slide(written(tmp_path / name, SMOOTH, tile=(64, 64), **options))
        assert slide.reader == "tifffile"
        np.testing.assert_array_equal(slide.read(0, 0, H, W), SMOOTH)
        slide.close()


@pytest.mark.parametrize(
    "image", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8), [[1]]]
)
def test_an_array_that_is_not_an_image_is_refused(image) -> None:
    with pytest.raises(DataError, match="An image"):
        ArraySlide(image)


def test_a_tiff_with_another_colour_model_is_refused(tmp_path) -> None:
    file = written(tmp_path / "a.tif", np.zeros((64, 64, 4), np.uint8), tile=(64, 64), photometric="separated")

    with pytest.raises(DataError, match="4 channels of colour model SEPARATED"):
        TiffSlide(file)


def test_an_unknown_compression_is_refused(tmp_path) -> None:
    file = written(tmp_path / "a.tif", SMOOTH, tile=(64, 64), compression="zlib")
    with tifffile.TiffFile(file, mode="r+") as tiff:
        tiff.pages[0].tags["Compression"].overwrite(34661)  # JBIG, for black and white images

    with pytest.raises(DataError, match="compressed with JBIG, which cannot be decoded"):
        TiffSlide(file)


def test_an_error_of_openslide_is_reported(tmp_path) -> None:
    def fail(name: str) -> None:
        raise RuntimeError("the index is damaged")

    with pytest.raises(DataError, match=r"OpenSlide cannot read .*a\.mrxs \(the index is damaged\)"):
        ScannerSlide(tmp_path / "a.mrxs", SimpleNamespace(OpenSlide=fail))


def test_an_orientation_tag_is_mentioned_whatever_the_format(tmp_path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in ("a.png", "a.jpg", "a.webp"):
        Image.new("RGB", (30, 20)).save(tmp_path / name, exif=exif)
        (note,) = open_slide(tmp_path / name).notes
        assert note.startswith("The file's Orientation tag is 6.")
