"""Images of more than 8 bits, floats and CMYK are refused, or converted as was asked, from every kind of file."""

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from nucseg.data.conversion import to_eight_bits
from nucseg.data.images import decode_image
from nucseg.data.slides import open_slide
from nucseg.errors import DataError

RNG = np.random.default_rng(0)
RGB16 = RNG.integers(0, 65_536, (40, 56, 3), dtype=np.uint16)
FLOATS = RNG.random((40, 56, 3), dtype=np.float32)
CMYK = RNG.integers(0, 256, (40, 56, 4), dtype=np.uint8)


def tiff(values: np.ndarray, **options: Any) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, values, metadata=None, **options)
    return file.getvalue()


def png16(values: np.ndarray) -> bytes:
    """Pillow cannot write it, so it is put together from the specification."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, 2 if values.ndim == 3 else 0, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def scaled(values: np.ndarray, largest: float) -> np.ndarray:
    """In double precision, rounded."""
    return np.floor(values.astype(np.float64) * 255 / largest + 0.5)


def without_ink(cmyk: np.ndarray) -> np.ndarray:
    ink = cmyk.astype(np.float64) / 255
    return 255 * (1 - ink[..., :3]) * (1 - ink[..., 3:])


CASES = {
    "16-bit RGB TIFF": (tiff(RGB16, photometric="rgb", compression="zlib"), scaled(RGB16, 65_535)),
    "16-bit RGB TIFF, tiles": (tiff(RGB16, photometric="rgb", tile=(32, 32)), scaled(RGB16, 65_535)),
    "16-bit gray TIFF": (tiff(RGB16[..., 0]), scaled(RGB16[..., :1], 65_535)),
    "32-bit TIFF": (tiff(RGB16[..., 0].astype(np.uint32) << 16), scaled(RGB16[..., :1], 65_535.99)),
    "16-bit RGB PNG": (png16(RGB16), scaled(RGB16, 65_535)),
    "16-bit gray PNG": (png16(RGB16[..., 0]), scaled(RGB16[..., :1], 65_535)),
    "float TIFF": (tiff(FLOATS, photometric="rgb", compression="zlib", predictor=True), scaled(FLOATS, 1)),
    "CMYK TIFF": (tiff(CMYK, photometric="separated"), without_ink(CMYK)),
}


@pytest.mark.parametrize("case", CASES)
def test_an_image_is_converted_if_asked_and_refused_otherwise(case, tmp_path) -> None:
    data, expected = CASES[case]
    file = tmp_path / ("a.png" if "PNG" in case else "a.tif")
    file.write_bytes(data)
    slide = open_slide(file, convert="full-range")
    for read in (decode_image(data, file, "full-range"), slide.read(0, 0, 40, 56)):
        assert np.abs(read.astype(float) - expected).max() <= 1
    slide.close()

    for refuse in (lambda: decode_image(data, file), lambda: open_slide(file)):
        with pytest.raises(DataError, match=r"expected 8-bit RGB.*--convert full-range"):
            refuse()


def test_a_cmyk_jpeg_is_converted(tmp_path) -> None:
    rgb = Image.new("RGB", (40, 30), (200, 90, 150))
    rgb.convert("CMYK").save(tmp_path / "a.jpg", quality=95)
    data = (tmp_path / "a.jpg").read_bytes()
    assert np.abs(decode_image(data, tmp_path / "a.jpg", "full-range").astype(int) - (200, 90, 150)).max() <= 4
    with pytest.raises(DataError, match="mode CMYK"):
        decode_image(data, tmp_path / "a.jpg")


@pytest.mark.parametrize("bits", [9, 12, 16, 24, 32, 64])
def test_the_range_of_integers_is_kept(bits) -> None:
    values = np.array([0, 1, 2**bits // 3, 2**bits - 1], np.uint64)
    assert to_eight_bits(values, bits).tolist() == [0, 0, 85, 255]


@pytest.mark.parametrize("value", [-0.1, 1.5, np.nan])
def test_floats_beyond_0_to_1_are_refused(value, tmp_path) -> None:
    values = FLOATS.copy()
    values[3, 4, 1] = value
    (tmp_path / "a.tif").write_bytes(tiff(values, photometric="rgb", compression="zlib"))
    slide = open_slide(tmp_path / "a.tif", convert="full-range")
    data = (tmp_path / "a.tif").read_bytes()
    for read in (lambda: slide.read(0, 0, 40, 56), lambda: decode_image(data, tmp_path / "a.tif", "full-range")):
        with pytest.raises(DataError, match=r"a\.tif cannot be converted: its values are from .* expects 0 to 1"):
            read()
    slide.close()


@pytest.mark.parametrize("kind", [np.int16, np.complex64])
def test_signed_and_complex_numbers_are_refused_in_any_case(kind, tmp_path) -> None:
    data = tiff(np.zeros((40, 56), kind), photometric="minisblack")
    with pytest.raises(DataError, match="expected 8-bit RGB"):
        decode_image(data, Path("a.tif"), "full-range")


def test_8_bit_images_are_unchanged_by_a_conversion() -> None:
    image = CMYK[..., :3].copy()
    np.testing.assert_array_equal(decode_image(tiff(image, photometric="rgb"), Path("a.tif"), "full-range"), image)
