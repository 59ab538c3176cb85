"""Choose the reader for an image file."""

import math
from pathlib import Path

from nucseg.data.files import IMAGE_SUFFIXES
from nucseg.data.images import MAX_PIXELS
from nucseg.data.slides.file_set import files_of
from nucseg.data.slides.in_memory import InMemoryImage, header_size
from nucseg.data.slides.openslide_reader import ScannerSlide, openslide_library
from nucseg.data.slides.resolution import tiff_mpp
from nucseg.data.slides.slide import Slide
from nucseg.data.slides.tiff import TiffSlide
from nucseg.errors import DataError
from nucseg.paths import as_path, opened_file

SCANNER_SUFFIXES = (".svs", ".ndpi", ".mrxs", ".scn", ".vms", ".vmu", ".svslide", ".bif")
"""Formats of slide scanners."""

SLIDE_SUFFIXES = (*IMAGE_SUFFIXES, *SCANNER_SUFFIXES)
"""Suffixes of the files that count as images."""

IN_MEMORY_PIXELS = 2048 * 2048
"""TIFFs with one page and at most this many pixels are decoded at once, exactly like the images of data sets."""

_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def open_slide(file: Path | str) -> Slide:
    """Open an image of any size: PNG, JPEG, TIFF, OME-TIFF, or any format of OpenSlide.

    Raises:
        DataError: the file is missing, damaged, or not an 8-bit RGB or gray image, or its library is not installed.
    """
    file = as_path(file)
    slide = _opened(file)
    slide.files = slide.files or files_of(file)
    return slide


def _opened(file: Path) -> Slide:
    try:
        with opened_file(file) as stream:
            magic = stream.read(4)
    except OSError as cause:
        raise DataError(f"{file} cannot be read: {cause.strerror}. Give an image, or a folder of images.") from cause
    if file.suffix.lower() in SCANNER_SUFFIXES:
        return _open_scanner_format(file, magic)
    if magic in _TIFF:
        return _open_tiff(file)
    return InMemoryImage(file)


def _open_scanner_format(file: Path, magic: bytes) -> Slide:
    openslide = openslide_library()
    if openslide is not None and openslide.OpenSlide.detect_format(str(file)) is not None:
        return ScannerSlide(file, openslide)
    if magic in _TIFF:
        return TiffSlide(file)
    advice = "It cannot read this file: is it damaged?" if openslide else "Run `pip install 'nucseg[slides]'`."
    raise DataError(f"{file} is not a TIFF, and other slide formats need OpenSlide. {advice}")


def _open_tiff(file: Path) -> Slide:
    try:
        slide = TiffSlide(file)
    except DataError:
        # Pillow can decode some that tifffile needs another library for, or has a clearer error
        with opened_file(file) as stream:
            width, height = header_size(stream)
        if 0 < width * height <= MAX_PIXELS:
            return InMemoryImage(file, _mpp_in(file))
        raise
    if len(slide.levels) == 1 and math.prod(slide.size) <= IN_MEMORY_PIXELS:
        slide.close()
        return InMemoryImage(file, slide.mpp)
    return slide


def _mpp_in(file: Path) -> float | None:
    import tifffile

    try:
        with tifffile.TiffFile(file) as tiff:
            return tiff_mpp(tiff)
    except Exception:  # its pixels may still be readable
        return None
