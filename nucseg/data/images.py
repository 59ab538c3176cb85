"""Decode image and mask files to arrays. What cannot be decoded faithfully is refused."""

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import BmpImagePlugin, Image, JpegImagePlugin, PngImagePlugin, WebPImagePlugin
from PIL.ImageFile import ImageFile

from nucseg.data import tiff
from nucseg.data.colours import on_white
from nucseg.data.conversion import OutOfRangeError, to_eight_bits
from nucseg.data.mask_values import one_channel, palette_values, picture_colours, tiff_colours, webp_chunks
from nucseg.errors import DataError

MAX_PIXELS = 8192 * 8192
"""Larger files are whole slides by mistake, or decompression bombs: nuclei would vanish on the prepared grid."""

_PNG, _JPEG, _BMP, _WEBP = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"BM", b"RIFF"
_PNG_DEPTH_BYTE = 24

_COLOUR_MODES = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "YCbCr"}


def decode_image(data: bytes, file: Path, convert: str = "none") -> npt.NDArray[np.uint8]:
    """Decode an 8-bit PNG, JPEG, TIFF, BMP or WebP, or others as `convert` says (see `conversion`), to RGB (H, W, 3).

    Gray and palette images become RGB; transparent ones are composited on white, the colour of an empty slide.
    Orientation tags (of TIFF and EXIF) and colour profiles are not applied to images or masks: pixels are read as they
    are stored. `file` is used in error messages only. Raises DataError for more than 8 bits per channel, several pages,
    other colour models, more than MAX_PIXELS, and damaged files.
    """
    with _errors_naming(file):
        if data.startswith(tiff.MAGIC):
            with _single_page(data, file) as page:
                tiff.check_image(page, file, convert)
                return tiff.page_rgb(page)
        opened = _open(data, file)
        picture: Image.Image = opened
        depth = _bits_per_channel(opened, data)
        if convert != "none" and (depth > 8 or picture.mode == "CMYK"):
            picture = _deep_png(data) if depth > 8 else picture.convert("RGB")
        elif depth > 8 or picture.mode not in _COLOUR_MODES:
            raise DataError(
                f"{file} has {depth}-bit pixels of mode {picture.mode}; expected 8-bit RGB, gray or palette. "
                f"{tiff.advice(is_convertible=True)}"
            )
        return on_white(picture) if picture.has_transparency_data else np.array(picture.convert("RGB"))


def image_size(data: bytes, file: Path) -> tuple[int, int]:
    """Height and width of an image from its header. Raises DataError for several pages and damaged files."""
    with _errors_naming(file):
        if data.startswith(tiff.MAGIC):
            with _single_page(data, file) as page:
                return page.imagelength, page.imagewidth
        picture = _open(data, file)
        return picture.height, picture.width


def decode_values(data: bytes, file: Path) -> npt.NDArray[Any]:
    """Decode a mask to the numbers (H, W) that are stored in it, integer or bool.

    Lookup tables only affect the display and are not applied. Which index of a palette is the background, and whether
    the mask is in the alpha channel, is decided in `mask_values`. Equal colour channels count as one. Raises DataError
    for lossy compression, which changes ids, floats, colours and damaged files.
    """
    with _errors_naming(file):
        if data.startswith(tiff.MAGIC):
            with _single_page(data, file) as page:
                values = tiff.mask_values(page, file)
                if (colours := tiff.palette(page)) is not None and values.dtype == np.uint8:
                    values = palette_values(values, tiff_colours(colours), file)
        else:
            values = _png_values(data, file)
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
    return 8


def _deep_png(data: bytes) -> Image.Image:
    """A PNG of 16 bits per channel, converted to 8 bits; Pillow would drop the lower ones."""
    import imagecodecs  # slow to import, needed only for these

    return Image.fromarray(to_eight_bits(imagecodecs.png_decode(data), bits=16))


def _png_values(data: bytes, file: Path) -> npt.NDArray[Any]:
    picture = _open(data, file)
    if isinstance(picture, JpegImagePlugin.JpegImageFile) or b"VP8 " in webp_chunks(data):
        raise DataError(
            f"{file} is a JPEG or WebP with lossy compression, which changes ids. Save masks as PNG or TIFF."
        )
    if len(picture.getbands()) > 1 and _bits_per_channel(picture, data) > 8:
        raise DataError(f"{file} is a 16-bit colour image, but a mask has one channel. Save it as 16-bit gray.")
    if picture.mode == "P":
        return palette_values(np.array(picture), picture_colours(picture), file)
    if "transparency" in picture.info and picture.mode in ("L", "RGB"):  # one gray or colour that is transparent
        return np.array(picture.convert(f"{picture.mode}A"))
    return np.array(picture)


@contextmanager
def _single_page(data: bytes, file: Path) -> Iterator[Any]:
    """Open a TIFF and yield its only page."""
    import tifffile  # slow to import, needed only for TIFFs

    with tifffile.TiffFile(BytesIO(data)) as opened:
        page = opened.pages.first
        _check_extent(page.imagewidth, page.imagelength, len(opened.pages), file)
        yield page


@contextmanager
def _errors_naming(file: Path) -> Iterator[None]:
    try:
        yield
    except DataError:
        raise
    except OutOfRangeError as cause:
        raise DataError(f"{file} cannot be converted: {cause}.") from cause
    except Exception as cause:  # for damaged files, decoders raise errors of many types
        raise DataError(
            f"{file} cannot be decoded ({cause or type(cause).__name__}). It is damaged, truncated or compressed in an "
            "unsupported way: download or export it again (PNG always works)."
        ) from cause
