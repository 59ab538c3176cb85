"""Decoding image and mask files: faithful or refused."""

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from nucseg.data.images import decode_image, decode_values
from nucseg.errors import DataError

FILE = Path("slides/a.png")
RGB = np.kron(np.random.default_rng(0).integers(0, 256, (6, 8, 3)), np.ones((4, 4, 1))).astype(np.uint8)
IDS = np.kron(np.random.default_rng(1).integers(0, 900, (6, 8)), np.ones((4, 4))).astype(np.uint16)


def packed(picture: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def tiff(values: np.ndarray, **options: Any) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, values, **options)
    return stream.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        packed(Image.fromarray(RGB), "PNG"),
        packed(Image.fromarray(RGB), "TIFF"),
        packed(Image.fromarray(RGB), "TIFF", compression="tiff_lzw"),
        tiff(RGB, compression="zlib"),
        tiff(RGB, tile=(16, 16)),
        tiff(RGB, byteorder=">"),
        tiff(RGB, bigtiff=True),
    ],
)
def test_lossless_rgb_is_decoded_exactly(data) -> None:
    np.testing.assert_array_equal(decode_image(data, FILE), RGB)


def test_a_jpeg_is_decoded_approximately() -> None:
    data = packed(Image.fromarray(np.full((16, 16, 3), (200, 90, 150), np.uint8)), "JPEG", quality=95)

    np.testing.assert_allclose(decode_image(data, FILE), np.broadcast_to((200, 90, 150), (16, 16, 3)), atol=4)


@pytest.mark.parametrize(("kind", "options"), [("BMP", {}), ("WEBP", {"lossless": True})])
def test_other_formats_without_loss_are_decoded_exactly(kind, options) -> None:
    np.testing.assert_array_equal(decode_image(packed(Image.fromarray(RGB), kind, **options), FILE), RGB)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_gray_becomes_three_equal_channels(kind) -> None:
    decoded = decode_image(packed(Image.fromarray(RGB[..., 0]), kind), FILE)

    np.testing.assert_array_equal(decoded, np.repeat(RGB[..., :1], 3, axis=2))


def test_a_palette_gives_its_colours() -> None:
    picture = Image.fromarray(np.array([[0, 1], [1, 2]], np.uint8), "L").convert("P")
    picture.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])

    decoded = decode_image(packed(picture, "PNG"), FILE)

    assert decoded.tolist() == [[[10, 20, 30], [40, 50, 60]], [[40, 50, 60], [70, 80, 90]]]


def test_opaque_pixels_keep_their_colours_and_transparent_ones_become_white() -> None:
    rgba = np.dstack([RGB, np.full(RGB.shape[:2], 255, np.uint8)])
    rgba[:4, :4] = (0, 0, 0, 0)
    expected = RGB.copy()
    expected[:4, :4] = 255

    np.testing.assert_array_equal(decode_image(packed(Image.fromarray(rgba), "PNG"), FILE), expected)


def png_of_16_bit_colour() -> bytes:
    """Pillow cannot write it, so it is put together from the specification: 2 x 1 pixels."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(b"\0" + struct.pack(">6H", 1, 2, 3, 60000, 50000, 40000)))
    return b"\x89PNG\r\n\x1a\n" + header + pixels + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    "data",
    [
        png_of_16_bit_colour(),
        packed(Image.fromarray(IDS), "PNG"),
        packed(Image.fromarray(IDS), "TIFF"),
        tiff(RGB.astype(np.uint16), photometric="rgb"),
        tiff(RGB[..., 0].astype(np.float32)),
        packed(Image.fromarray(RGB).convert("CMYK"), "JPEG"),
    ],
)
def test_more_than_8_bits_and_other_colour_models_are_refused(data) -> None:
    with pytest.raises(DataError, match=r"slides/a\.png has .* expected 8-bit RGB"):
        decode_image(data, FILE)


@pytest.mark.parametrize("decode", [decode_image, decode_values])
@pytest.mark.parametrize("data", [b"", b"id,name\n1,a\n", b"\x89PNG\r\n\x1a\n", b"II*\0", b"\xff\xd8\xff"])
def test_other_files_are_refused(decode, data) -> None:
    with pytest.raises(DataError, match=r"slides/a\.png"):
        decode(data, FILE)


@pytest.mark.parametrize("decode", [decode_image, decode_values])
def test_several_pages_are_refused(decode) -> None:
    with pytest.raises(DataError, match="3 pages; expected one"):
        decode(tiff(np.zeros((3, 8, 8), np.uint8), photometric="minisblack"), FILE)


@pytest.mark.parametrize("decode", [decode_image, decode_values])
def test_a_decompression_bomb_is_refused_without_a_warning(decode) -> None:
    small = packed(Image.fromarray(RGB), "PNG")
    header = b"IHDR" + struct.pack(">II", 60_000, 60_000) + small[24:29]
    bomb = small[:12] + header + struct.pack(">I", zlib.crc32(header)) + small[33:]

    with pytest.raises(DataError, match="60000 x 60000 pixels"):  # a warning would be an error of its own
        decode(bomb, FILE)


IMAGE_FILES = {
    "png": packed(Image.fromarray(RGB), "PNG"),
    "jpeg": packed(Image.fromarray(RGB), "JPEG"),
    "tiff": tiff(RGB),
    "webp": packed(Image.fromarray(RGB), "WEBP"),
    "tiff, deflate": tiff(RGB, compression="zlib"),
    "tiff, lzw": packed(Image.fromarray(RGB), "TIFF", compression="tiff_lzw"),
}
MASK_FILES = {
    "png": packed(Image.fromarray(IDS), "PNG"),
    "tiff": tiff(IDS),
    "tiff, deflate": tiff(IDS, compression="zlib"),
    "tiff, lzw": packed(Image.fromarray(IDS), "TIFF", compression="tiff_lzw"),
    "tiff, packbits": packed(Image.fromarray(IDS), "TIFF", compression="packbits"),
}


@pytest.mark.parametrize(
    ("decode", "data"),
    [(decode_image, data) for data in IMAGE_FILES.values()] + [(decode_values, data) for data in MASK_FILES.values()],
    ids=[f"image {name}" for name in IMAGE_FILES] + [f"mask {name}" for name in MASK_FILES],
)
def test_a_file_truncated_anywhere_never_gives_other_pixels(decode, data) -> None:
    whole = decode(data, FILE)
    refused = 0
    for length in range(0, len(data), 7):
        try:
            np.testing.assert_array_equal(decode(data[:length], FILE), whole)
        except DataError:
            refused += 1
    assert refused > len(data) // 7 * 0.8


@pytest.mark.parametrize("data", MASK_FILES.values(), ids=MASK_FILES)
def test_16_bit_ids_are_decoded_exactly(data) -> None:
    np.testing.assert_array_equal(decode_values(data, FILE), IDS)


@pytest.mark.parametrize("dtype", [np.int32, np.uint32, np.int64])
def test_wider_ids_are_decoded_exactly(dtype) -> None:
    ids = IDS.astype(dtype) * 70_000

    np.testing.assert_array_equal(decode_values(tiff(ids), FILE), ids)


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "packbits"])
def test_an_inverted_lookup_table_changes_no_number(compression) -> None:
    mask = np.zeros((8, 8), np.uint8)
    mask[2:4, 2:4] = 7
    data = packed(Image.fromarray(mask), "TIFF", compression=compression, tiffinfo={262: 0})

    stored = tifffile.TiffFile(io.BytesIO(data)).pages.first
    assert stored.photometric == tifffile.PHOTOMETRIC.MINISWHITE
    # Pillow turns the numbers over when it writes such a file; what counts is what stands in the file
    assert decode_values(data, FILE).tolist() == (255 - np.array(Image.open(io.BytesIO(data)))).tolist()


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_equal_colour_channels_count_as_one(channels) -> None:
    layers = [IDS.astype(np.uint8)] * min(channels, 3) if channels > 2 else [IDS.astype(np.uint8)]
    if channels != 3:
        layers.append(np.full(IDS.shape, 255, np.uint8))

    np.testing.assert_array_equal(
        decode_values(packed(Image.fromarray(np.dstack(layers)), "PNG"), FILE), IDS.astype(np.uint8)
    )


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (packed(Image.fromarray(RGB), "PNG"), "colour image"),
        (png_of_16_bit_colour(), "16-bit colour"),
        (tiff(RGB), "colour image"),
        (packed(Image.fromarray(RGB[..., 0]), "JPEG"), "JPEG"),
        (packed(Image.fromarray(RGB), "TIFF", compression="jpeg"), "JPEG"),
        (tiff(RGB[..., 0].astype(np.float32)), "float32 values"),
    ],
)
def test_masks_that_cannot_hold_ids_are_refused_with_the_reason(data, reason) -> None:
    with pytest.raises(DataError, match=reason):
        decode_values(data, FILE)


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "packbits"])
def test_signed_masks_keep_their_sign_and_signed_images_are_refused(compression) -> None:
    values = np.array([[-3, 7], [0, 127]], np.int8)
    data = packed(Image.fromarray(values.view(np.uint8)), "TIFF", compression=compression, tiffinfo={339: 2})

    np.testing.assert_array_equal(decode_values(data, FILE), values)
    with pytest.raises(DataError, match="signed"):
        decode_image(data, FILE)


def test_a_second_channel_of_unknown_meaning_is_not_dropped() -> None:
    two = tiff(RGB[..., :2].copy(), photometric="minisblack", planarconfig="contig")

    for decode in (decode_image, decode_values):
        with pytest.raises(DataError, match="two channels" if decode is decode_values else "second channel"):
            decode(two, FILE)


def test_a_second_channel_that_is_transparency_is_understood() -> None:
    ids = np.stack([IDS.astype(np.uint8), np.full(IDS.shape, 255, np.uint8)], axis=-1)
    data = tiff(ids, photometric="minisblack", planarconfig="contig", extrasamples=["unassalpha"])

    np.testing.assert_array_equal(decode_values(data, FILE), ids[..., 0])
    np.testing.assert_array_equal(decode_image(data, FILE)[..., 0], ids[..., 0])
