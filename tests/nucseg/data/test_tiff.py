"""The same pixels come out of a TIFF however they were stored, as an image, a mask or a slide; or it is refused."""

import io
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from nucseg.data.images import decode_image, decode_values
from nucseg.data.slides import open_slide
from nucseg.errors import DataError

FILE = Path("slides/a.tif")
SIZES = [(40, 56), (300, 421)]
CODECS = [None, "zlib", "lzw", "packbits", "lzma", "zstd", "png", "jpeg2000", "webp"]
RELAXED = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=120, deadline=None)


def tiff(values: np.ndarray, **options: Any) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, values, metadata=None, **options)
    return file.getvalue()


def smooth(size: tuple[int, int], channels: int, seed: int = 0) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 7, channels), dtype=np.uint8)
    planes = [
        Image.fromarray(plane).resize(size[::-1], Image.Resampling.BICUBIC) for plane in np.moveaxis(coarse, 2, 0)
    ]
    return np.stack([np.asarray(plane) for plane in planes], axis=2)


@st.composite
def storage(draw: st.DrawFn) -> dict[str, Any]:
    """How a TIFF is laid out; not every combination exists."""
    options: dict[str, Any] = {
        "compression": draw(st.sampled_from(CODECS)),
        "byteorder": draw(st.sampled_from("<>")),
        "bigtiff": draw(st.booleans()),
        "extratags": [(274, "H", 1, draw(st.integers(1, 8)), True)],
    }
    options |= draw(st.sampled_from([{"tile": (64, 48)}, {"rowsperstrip": 16}, {}]))
    if options["compression"] in ("zlib", "lzw", "zstd"):
        options["predictor"] = draw(st.booleans())
    return options


def both_places(data: bytes, folder: Path) -> list[np.ndarray]:
    """The pixels of a file as an image of a data set and as a slide."""
    (folder / "a.tif").write_bytes(data)
    slide = open_slide(folder / "a.tif")
    h, w = slide.size
    whole, part = slide.read(0, 0, h, w), slide.read(5, 9, h - 7, w - 11)
    slide.close()
    np.testing.assert_array_equal(part, whole[5 : h - 2, 9 : w - 2])
    return [decode_image(data, FILE), whole]


@RELAXED
@given(st.sampled_from(SIZES), storage(), st.sampled_from(["rgb", "minisblack", "miniswhite", "palette"]), st.data())
def test_an_image_has_the_pixels_that_were_written(tmp_path, size, options, photometric, data) -> None:
    channels = 3 if photometric == "rgb" else 1
    image = smooth(size, channels)
    alpha = data.draw(st.sampled_from([None, "unassalpha", "assocalpha", "unspecified"])) if channels == 3 else None
    stored, expected = image, np.broadcast_to(image, (*size, 3))
    if alpha:
        clear = np.repeat(np.arange(size[1]) < size[1] // 2, 1)[None, :, None] & (alpha != "unspecified")
        opacity = np.broadcast_to(np.where(clear, 0, 255), (*size, 1)).astype(np.uint8)
        stored = np.concatenate([np.where(clear & (alpha == "assocalpha"), 0, image), opacity], axis=2).astype(np.uint8)
        expected = np.where(clear, 255, image)
        options["extrasamples"] = [alpha]
    if photometric == "miniswhite":
        expected = 255 - expected
    if photometric == "palette":
        colours = np.random.default_rng(1).integers(0, 256, (3, 256)).astype(np.uint16)
        options["colormap"], expected = colours * 257, np.moveaxis(colours[:, image[..., 0]], 0, 2)
    assume(options["compression"] != "webp" or channels == 3)
    stored = stored[..., 0] if channels == 1 else stored
    if channels == 3 and options["compression"] != "webp" and data.draw(st.booleans()):
        options["planarconfig"], stored = "separate", np.moveaxis(stored, 2, 0)
    elif channels == 3:
        options["planarconfig"] = "contig"

    for read in both_places(tiff(stored, photometric=photometric, **options), tmp_path):
        np.testing.assert_array_equal(read, expected)


@RELAXED
@given(
    st.sampled_from(SIZES),
    storage(),
    st.sampled_from(["u1", "i1", "u2", "i2", "u4", "i4"]),
    st.sampled_from(["minisblack", "miniswhite"]),
    st.booleans(),
)
def test_a_mask_has_the_numbers_that_were_written(size, options, kind, photometric, negative) -> None:
    lossless_for = {"png": ("u1", "u2"), "jpeg2000": ("u1", "u2"), "webp": ()}
    assume(kind in lossless_for.get(options["compression"], (kind,)))
    if kind == "u2" and options["compression"] in lossless_for:
        options["byteorder"] = "<"  # imagecodecs cannot write the other
    values = smooth(size, 1)[..., 0].astype(kind) * (100 if kind[1] != "1" else 1)
    if negative and kind[0] == "i":
        values = -values

    read = decode_values(tiff(values, photometric=photometric, **options), FILE)

    np.testing.assert_array_equal(read, values)
    assert read.dtype.kind == kind[0]


# ---- orientation and EXIF


@pytest.mark.parametrize("orientation", [2, 6])
def test_orientation_is_applied_to_no_image_mask_or_slide(orientation, tmp_path) -> None:
    """Pillow #4053 and #7381, and the test_orient*.tif of large_image: small images were turned and their masks not."""
    image, tags = smooth((40, 56), 3), [(274, "H", 1, orientation, True)]
    for read in both_places(tiff(image, photometric="rgb", extratags=tags), tmp_path):
        np.testing.assert_array_equal(read, image)
    np.testing.assert_array_equal(
        decode_values(tiff(image[..., 0], compression="lzw", extratags=tags), FILE), image[..., 0]
    )
    slide = open_slide(tmp_path / "a.tif")
    assert f"Orientation tag is {orientation}. It is not applied" in " ".join(slide.notes)
    slide.close()


@pytest.mark.parametrize("kind", ["jpeg", "png"])
def test_exif_is_not_applied_either(kind, tmp_path) -> None:
    image, exif = smooth((40, 56), 3), Image.Exif()
    exif[274] = 6
    Image.fromarray(image).save(tmp_path / f"a.{kind}", exif=exif, quality=95, subsampling=0)
    slide = open_slide(tmp_path / f"a.{kind}")
    assert slide.size == (40, 56)
    assert "Orientation tag is 6" in " ".join(slide.notes)
    assert np.abs(slide.read(0, 0, 40, 56).astype(int) - image).mean() < 3


# ---- codecs and colour models


@pytest.mark.parametrize("codec", ["jpeg2000", "png", "webp", "jpegxl", 33005])
def test_a_codec_is_read_at_any_size(codec, tmp_path) -> None:
    """QuPath's forum and tifffile: JPEG 2000 in TIFF was refused below 2048 pixels a side and read above."""
    for side in (96, 2112):
        image = np.kron(smooth((96, 96), 3), np.ones((side // 96, side // 96, 1), np.uint8))
        file = tmp_path / f"{side}.tif"
        file.write_bytes(tiff(image, photometric="rgb", compression=codec, tile=(96, 96)))
        slide = open_slide(file)
        np.testing.assert_array_equal(slide.read(0, 0, 96, 96), image[:96, :96])
        np.testing.assert_array_equal(slide.read(side - 50, side - 60, 50, 60), image[-50:, -60:])
        slide.close()


def ycbcr(image: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(image).convert("YCbCr"))


@pytest.mark.parametrize("codec", [None, "zlib", 34712])
def test_ycbcr_is_converted_as_the_tag_says_or_refused_if_subsampled(codec, tmp_path) -> None:
    image = smooth((64, 64), 3)
    args = {"compressionargs": {"mct": False}} if codec == 34712 else {}
    data = tiff(ycbcr(image), photometric="ycbcr", compression=codec, tile=(64, 64), **args)
    for read in both_places(data, tmp_path):
        assert np.abs(read.astype(int) - image).max() <= 4  # rounding of YCbCr

    if codec == 34712:
        return
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+") as file:
        file.pages.first.tags["YCbCrSubSampling"].overwrite((2, 2))
    with pytest.raises(DataError, match="YCbCr but not JPEG, with chroma subsampling"):
        open_slide(tmp_path / "a.tif")


@pytest.mark.parametrize("suffix", [".svs", ".tif"])
def test_aperio_33003_is_ycbcr_whatever_the_suffix(suffix, tmp_path) -> None:
    """OpenSlide #772: the compression says what the channels are; the tag of the colour model says RGB."""
    image = smooth((256, 256), 3)
    description = "Aperio Image Library v10.0.51\n256x256 (256x256) J2K/YUV16 Q=70|AppMag = 20|MPP = 0.5"
    args = {"mct": False, "reversible": True}
    data = tiff(
        ycbcr(image),
        photometric="rgb",
        compression=33003,
        compressionargs=args,
        tile=(256, 256),
        description=description,
    )
    (tmp_path / f"a{suffix}").write_bytes(data)

    slide = open_slide(tmp_path / f"a{suffix}")

    assert slide.reader == ("openslide" if suffix == ".svs" else "tifffile")
    assert np.abs(slide.read(0, 0, 256, 256).astype(int) - image).max() <= 4  # rounding of YCbCr
    slide.close()


@pytest.mark.parametrize("codec", [33003, 33005])
def test_in_jpeg_2000_the_number_of_the_codec_and_not_the_colour_model_decides(codec, tmp_path) -> None:
    """A slide of Aperio can be tagged YCbCr in both; OpenSlide takes 33003 for YCbCr and 33005 for RGB."""
    image = smooth((64, 64), 3)
    stored, args = (ycbcr(image) if codec == 33003 else image), {"mct": False, "reversible": True}
    data = tiff(stored, photometric="ycbcr", compression=codec, compressionargs=args, tile=(64, 64))
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        offset = file.pages.first.tags["YCbCrSubSampling"].offset
    data = data[:offset] + (65_000).to_bytes(2, "little") + data[offset + 2 :]  # a private tag in its place
    for read in both_places(data, tmp_path):
        assert np.abs(read.astype(int) - image).max() <= 4


def test_aperio_33003_with_subsampled_chroma_is_converted_once(tmp_path) -> None:
    """Real slides are J2K/YUV16, whose chroma has half the columns; with gray tissue the result must be gray."""
    luma = smooth((64, 64), 1)
    stored = np.dstack([luma, np.full((64, 64, 2), 128, np.uint8)])
    coded = bytearray(imagecodecs.jpeg2k_encode(stored, codecformat="j2k", mct=False, reversible=True, resolutions=1))
    size = coded.find(b"\xff\x51")
    coded[size + 44] = coded[size + 47] = 2  # without detail in the chroma, only the header differs
    for suffix in (".svs", ".tif"):
        with tifffile.TiffWriter(tmp_path / f"a{suffix}") as file:
            file.write(
                iter([bytes(coded)]), shape=stored.shape, dtype=np.uint8, photometric="rgb", tile=(64, 64),
                compression=33003, metadata=None, description="Aperio Image Library v10|AppMag = 20|MPP = 0.5",
            )  # fmt: skip
        slide = open_slide(tmp_path / f"a{suffix}")
        assert np.abs(slide.read(0, 0, 64, 64).astype(int) - luma).max() <= 1
        slide.close()


def test_jpeg_in_tiff_has_the_bytes_that_pillow_decodes(tmp_path) -> None:
    """Stores made when small images were read by Pillow stay valid."""
    file = io.BytesIO()
    Image.fromarray(smooth((96, 112), 3)).save(file, "TIFF", compression="jpeg", quality=90)

    for read in both_places(file.getvalue(), tmp_path):
        np.testing.assert_array_equal(read, np.asarray(Image.open(file).convert("RGB")))


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_fewer_bits_are_scaled_to_eight(bits, tmp_path) -> None:
    values = smooth((40, 56), 1)[..., 0] >> (8 - bits)
    packed = imagecodecs.packints_encode(values.ravel(), bits) if bits > 1 else np.packbits(values).tobytes()
    data = bytearray(tiff(values, photometric="minisblack"))
    with tifffile.TiffFile(io.BytesIO(bytes(data))) as file:
        page = file.pages.first
        data[page.dataoffsets[0] : page.dataoffsets[0] + len(packed)] = packed
        tags = {name: page.tags[name].valueoffset for name in ("BitsPerSample", "StripByteCounts")}
    data[tags["BitsPerSample"]] = bits
    data[tags["StripByteCounts"] : tags["StripByteCounts"] + 2] = len(packed).to_bytes(2, "little")

    for read in both_places(bytes(data), tmp_path):
        np.testing.assert_array_equal(read[..., 0], np.rint(values * 255.0 / (2**bits - 1)))


def test_partly_transparent_and_premultiplied_colours_are_the_same_on_white(tmp_path) -> None:
    image, alpha = smooth((40, 56), 3), smooth((40, 56), 1, seed=3)
    expected = np.rint(image * (alpha / 255.0) + 255 - alpha)
    premultiplied = np.rint(image * (alpha / 255.0)).astype(np.uint8)
    for colours, kind in ((image, "unassalpha"), (premultiplied, "assocalpha")):
        data = tiff(np.concatenate([colours, alpha], axis=2), photometric="rgb", extrasamples=[kind])
        for read in both_places(data, tmp_path):
            assert np.abs(read - expected).max() <= 1


def test_a_chunk_that_is_not_in_the_file_is_white_in_every_colour_model(tmp_path) -> None:
    for photometric in ("minisblack", "miniswhite"):
        values = np.zeros((64, 128), np.uint8)
        data = tiff(values, photometric=photometric, tile=(64, 64), compression="zlib")
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            counts = file.pages.first.tags["TileByteCounts"]
        (tmp_path / "a.tif").write_bytes(data)
        with tifffile.TiffFile(tmp_path / "a.tif", mode="r+") as file:
            file.pages.first.tags["TileByteCounts"].overwrite((counts.value[0], 0))
        slide = open_slide(tmp_path / "a.tif")
        assert (slide.read(0, 64, 64, 64) == 255).all()
        slide.close()


# ---- refusals


@pytest.mark.parametrize("side", [64, 2112])
@pytest.mark.parametrize(
    ("channels", "kind", "options", "message"),
    [
        (3, "u2", {"photometric": "rgb"}, "16-bit unsigned pixels"),
        (1, "i1", {"photometric": "minisblack"}, "8-bit signed pixels"),
        (1, "f4", {"photometric": "minisblack"}, "32-bit float pixels"),
        (4, "u1", {"photometric": "separated"}, "4 channels of colour model SEPARATED"),
        (2, "u1", {"photometric": "minisblack", "planarconfig": "contig"}, "second channel of unknown meaning"),
    ],
)
def test_an_image_is_refused_with_the_same_words_at_any_size(side, channels, kind, options, message, tmp_path) -> None:
    values = np.zeros((side, side, channels)[: 2 + (channels > 1)], kind)
    data = tiff(values, compression="zlib", **options)
    (tmp_path / "a.tif").write_bytes(data)
    with pytest.raises(DataError, match=message) as as_slide:
        open_slide(tmp_path / "a.tif")
    with pytest.raises(DataError, match=message) as as_image:
        decode_image(data, tmp_path / "a.tif")
    assert str(as_slide.value) == str(as_image.value)


@pytest.mark.parametrize(
    ("codec", "args", "name"),
    [
        ("jpeg", {}, "JPEG"),
        ("jpeg2000", {"level": 60}, "JPEG2000"),
        ("webp", {"level": 60, "lossless": False}, "WEBP"),
        ("jpegxl", {}, "JPEGXL"),
    ],
)
@pytest.mark.parametrize("side", [64, 2112])
def test_a_mask_in_a_lossy_codec_is_refused_by_its_name(codec, args, name, side) -> None:
    values = np.zeros((side, side, 3), np.uint8)
    data = tiff(values, photometric="rgb", compression=codec, compressionargs=args)
    with pytest.raises(DataError, match=f"compressed with {name}, which may be lossy and change ids"):
        decode_values(data, FILE)


@pytest.mark.parametrize("decode", [decode_image, decode_values])
def test_a_codec_without_a_decoder_is_refused_by_its_name(decode) -> None:
    data = bytearray(tiff(np.zeros((64, 64), np.uint8), compression="zlib"))
    with tifffile.TiffFile(io.BytesIO(bytes(data))) as file:
        offset = file.pages.first.tags["Compression"].valueoffset
    data[offset : offset + 2] = (34661).to_bytes(2, "little")  # JBIG, for black and white images

    with pytest.raises(DataError, match="compressed with JBIG, which cannot be decoded"):
        decode(bytes(data), FILE)
