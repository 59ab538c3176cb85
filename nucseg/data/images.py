"""Decode image and mask files to arrays. What cannot be decoded faithfully is refused."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import BmpImagePlugin, Image, JpegImagePlugin, PngImagePlugin, TiffImagePlugin, WebPImagePlugin
from PIL.ImageFile import ImageFile

from nucseg.data.mask_values import one_channel, palette_values, picture_colours, tiff_colours
from nucseg.errors import DataError

MAX_PIXELS = 8192 * 8192
"""Larger files are whole slides by mistake, or decompression bombs: nuclei would vanish on the prepared grid."""

_PNG, _JPEG, _BMP, _WEBP = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"BM", b"RIFF"
_WEBP_HEADER_BYTES = 12
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_PNG_DEPTH_BYTE = 24
_TIFF_BITS_PER_SAMPLE, _TIFF_LZW, _TIFF_JPEG, _TIFF_PACKBITS, _TIFF_WHITE_IS_ZERO = 258, 5, 7, 32773, 0
_TIFF_PALETTE = 3
_TIFF_SAMPLE_FORMAT, _TIFF_EXTRA_SAMPLES, _TIFF_SAMPLES_PER_PIXEL = 339, 338, 277
_TIFF_UNSIGNED = {1, 4}
"""Sample formats read as unsigned: unsigned itself, and undefined, which old programs write."""

_COLOUR_MODES = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "YCbCr"}

# tifffile logs problems in damaged files, which would be printed in addition to the error raised here
logging.getLogger("tifffile").addHandler(logging.NullHandler())


def decode_image(data: bytes, file: Path) -> npt.NDArray[np.uint8]:
    """Decode an 8-bit PNG, JPEG, TIFF, BMP or WebP to RGB (H, W, 3).

    Gray and palette images become RGB; transparent ones are composited on white, the colour of an empty slide.
    Orientation tags and colour profiles are not applied, since masks do not have them. `file` is used in error messages
    only. Raises DataError for more than 8 bits per channel, several pages, other colour models, more than MAX_PIXELS,
    and damaged files.
    """
    with _errors_naming(file):
        picture = _open(data, file)
        if isinstance(picture, TiffImagePlugin.TiffImageFile):
            _check_samples(picture, file)
        depth = _bits_per_channel(picture, data)
        if depth > 8 or picture.mode not in _COLOUR_MODES:
            raise DataError(
                f"{file} has {depth}-bit pixels of mode {picture.mode}; expected 8-bit RGB, gray or palette. Export it "
                "as 8-bit RGB (only you can decide how to scale 16 bits down)."
            )
        if picture.has_transparency_data:
            clear = picture.convert("RGBA")
            picture_on_white = Image.new("RGBA", clear.size, "white")
            picture_on_white.alpha_composite(clear)
            return np.array(picture_on_white.convert("RGB"))
        return np.array(picture.convert("RGB"))


def decode_values(data: bytes, file: Path) -> npt.NDArray[Any]:
    """Decode a mask to the numbers (H, W) that are stored in it, integer or bool.

    Lookup tables only affect the display and are not applied. Which index of a palette is the background, and whether
    the mask is in the alpha channel, is decided in `mask_values`. Equal colour channels count as one. Raises DataError
    for JPEG and lossy WebP (which change ids), floats, colours and damaged files.
    """
    with _errors_naming(file):
        values = _tiff_values(data, file) if data.startswith(_TIFF) else _png_values(data, file)
        if values.ndim > 2:
            values = one_channel(values, file)
        if values.dtype.kind not in "bui":
            raise DataError(
                f"{file} has {values.dtype} values, but a mask must have integers. Save it as 16-bit integers."
            )
        return values


def _open(data: bytes, file: Path) -> ImageFile:
    # call the plugins directly, because Image.open applies a global size limit with a warning
    picture: ImageFile
    if data.startswith(_PNG):
        picture = PngImagePlugin.PngImageFile(BytesIO(data))
    elif data.startswith(_JPEG):
        picture = JpegImagePlugin.JpegImageFile(BytesIO(data))
    elif data.startswith(_TIFF):
        picture = TiffImagePlugin.TiffImageFile(BytesIO(data))
    elif data.startswith(_BMP):
        picture = BmpImagePlugin.BmpImageFile(BytesIO(data))
    elif data.startswith(_WEBP) and data[8:12] == b"WEBP":
        picture = WebPImagePlugin.WebPImageFile(BytesIO(data))
    else:
        raise DataError(
            f"{file} is not an image of a known format: {len(data)} bytes starting with {data[:8]!r}. Expected PNG, "
            "JPEG, TIFF, BMP or WebP."
        )
    _check_extent(picture.width, picture.height, getattr(picture, "n_frames", 1), file)
    return picture


def _check_extent(width: int, height: int, n_pages: int, file: Path) -> None:
    if width * height > MAX_PIXELS:
        raise DataError(
            f"{file} has {width} x {height} pixels, more than the {MAX_PIXELS:,} allowed. Cut it into tiles first."
        )
    if n_pages != 1:
        raise DataError(f"{file} has {n_pages} pages; expected one. Save the right page as a separate file.")


def _bits_per_channel(picture: ImageFile, data: bytes) -> int:
    # Pillow silently reduces 16-bit colour to 8 bits, so read the depth from the file
    if isinstance(picture, PngImagePlugin.PngImageFile):
        return data[_PNG_DEPTH_BYTE]
    if isinstance(picture, TiffImagePlugin.TiffImageFile):
        return int(max(picture.tag_v2.get(_TIFF_BITS_PER_SAMPLE, (1,))))
    return 8


def _check_samples(picture: TiffImagePlugin.TiffImageFile, file: Path) -> None:
    # Pillow silently reads negative values as large ones and drops a second channel
    if not set(picture.tag_v2.get(_TIFF_SAMPLE_FORMAT, (1,))) <= _TIFF_UNSIGNED:
        raise DataError(f"{file} has signed integers or floats; expected 8-bit RGB, gray or palette. Export it again.")
    n_channels, kinds = picture.tag_v2.get(_TIFF_SAMPLES_PER_PIXEL, 1), picture.tag_v2.get(_TIFF_EXTRA_SAMPLES, ())
    if n_channels == 2 and 0 in kinds:
        raise DataError(
            f"{file} has a second channel of unknown meaning; expected 8-bit RGB, gray or palette. Export it as RGB or "
            "gray."
        )


def _png_values(data: bytes, file: Path) -> npt.NDArray[Any]:
    picture = _open(data, file)
    if isinstance(picture, JpegImagePlugin.JpegImageFile) or _is_lossy_webp(data):
        raise _lossy(file)
    if len(picture.getbands()) > 1 and _bits_per_channel(picture, data) > 8:
        raise DataError(f"{file} is a 16-bit colour image, but a mask has one channel. Save it as 16-bit gray.")
    if picture.mode == "P":
        return palette_values(np.array(picture), picture_colours(picture), file)
    if "transparency" in picture.info and picture.mode in ("L", "RGB"):  # one gray or colour that is transparent
        return np.array(picture.convert(f"{picture.mode}A"))
    return np.array(picture)


def _is_lossy_webp(data: bytes) -> bool:
    """Whether a WebP file has a lossy image, which is in a chunk `VP8 `, also within a file of several chunks."""
    position = _WEBP_HEADER_BYTES
    while data[8:12] == b"WEBP" and position + 8 <= len(data):
        name, n_bytes = data[position : position + 4], int.from_bytes(data[position + 4 : position + 8], "little")
        if name == b"VP8 ":
            return True
        position += 8 + n_bytes + n_bytes % 2
    return False


def _tiff_values(data: bytes, file: Path) -> npt.NDArray[Any]:
    import tifffile  # slow to import, needed only for masks in TIFF

    with tifffile.TiffFile(BytesIO(data)) as tiff:
        page = tiff.pages.first
        _check_extent(page.imagewidth, page.imagelength, len(tiff.pages), file)
        if page.samplesperpixel == 2 and 0 in page.extrasamples:
            raise DataError(f"{file} has two channels, but a mask has one. Save the channel with the nuclei.")
        if page.compression == _TIFF_JPEG:
            raise _lossy(file)
        # tifffile needs another package for LZW, and decodes PackBits in Python, ten times slower than Pillow
        small = page.dtype in (np.uint8, np.uint16)
        if page.compression != _TIFF_LZW and not (page.compression == _TIFF_PACKBITS and small):
            values = np.asarray(page.asarray())
            if page.photometric == _TIFF_PALETTE and page.colormap is not None and values.dtype == np.uint8:
                return palette_values(values, tiff_colours(page.colormap), file)
            return values
        # but Pillow inverts images whose photometric interpretation is inverted
        values = np.array(_open(data, file))
        inverted = page.photometric == _TIFF_WHITE_IS_ZERO and values.dtype.itemsize == 1
        signed = page.dtype == np.int8 and values.dtype == np.uint8  # and reads negative values as large ones
        return (~values if inverted else values).view(np.int8 if signed else values.dtype)


def _lossy(file: Path) -> DataError:
    return DataError(f"{file} is a JPEG or WebP with lossy compression, which changes ids. Save masks as PNG or TIFF.")


@contextmanager
def _errors_naming(file: Path) -> Iterator[None]:
    try:
        yield
    except DataError:
        raise
    except Exception as cause:  # for damaged files, decoders raise errors of many types
        raise DataError(
            f"{file} cannot be decoded ({cause or type(cause).__name__}). It is damaged, truncated or compressed in an "
            "unsupported way: download or export it again (PNG always works)."
        ) from cause
