"""From a file to the reader that fits it."""

from __future__ import annotations

import math
from pathlib import Path

from nucseg.data.files import IMAGE_SUFFIXES
from nucseg.data.images import MAX_PIXELS
from nucseg.data.slides.in_memory import WholeImage, extent
from nucseg.data.slides.openslide_reader import ScannerSlide, openslide_library
from nucseg.data.slides.resolution import tiff_mpp
from nucseg.data.slides.slide import Slide
from nucseg.data.slides.tiff import TiffSlide
from nucseg.errors import DataError
from nucseg.paths import opened_file

SCANNER_SUFFIXES = (".svs", ".ndpi", ".mrxs", ".scn", ".vms", ".vmu", ".svslide", ".bif")
"""Formats of scanners."""

SLIDE_SUFFIXES = (*IMAGE_SUFFIXES, *SCANNER_SUFFIXES)
"""What is taken for an image in a folder."""

WHOLE_TIFF_PIXELS = 2048 * 2048
"""TIFFs of one page and no more pixels are decoded whole, exactly as a data set's images are."""

_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def open_slide(file: Path) -> Slide:
    """Open an image of any size: PNG, JPEG, TIFF, OME-TIFF, or what OpenSlide reads.

    Raises:
        DataError: no such file, no image, damaged, not 8-bit RGB or gray, or a library is missing for it.
    """
    try:
        with opened_file(file) as stream:
            begin = stream.read(4)
    except OSError as cause:
        raise DataError(f"{file} cannot be read: {cause.strerror}. Name an image, or a folder of images.") from cause
    if file.suffix.lower() in SCANNER_SUFFIXES:
        return _scanned(file, begin)
    if begin in _TIFF:
        return _tiff(file)
    return WholeImage(file)


def _scanned(file: Path, begin: bytes) -> Slide:
    openslide = openslide_library()
    if openslide is not None and openslide.OpenSlide.detect_format(str(file)) is not None:
        return ScannerSlide(file, openslide)
    if begin in _TIFF:
        return TiffSlide(file)
    how = (
        "OpenSlide does not know it either: is it damaged?"
        if openslide
        else "`pip install 'nucseg[slides]'` brings it."
    )
    raise DataError(f"{file} is no TIFF, and slides of other formats are read by OpenSlide. {how}")


def _tiff(file: Path) -> Slide:
    try:
        slide = TiffSlide(file)
    except DataError:
        # Pillow unpacks some that tifffile needs a further library for, or says more clearly what is wrong
        with opened_file(file) as stream:
            width, height = extent(stream)
        if 0 < width * height <= MAX_PIXELS:
            return WholeImage(file, _said(file))
        raise
    if len(slide.levels) == 1 and math.prod(slide.size) <= WHOLE_TIFF_PIXELS:
        slide.close()
        return WholeImage(file, slide.mpp)
    return slide


def _said(file: Path) -> float | None:
    import tifffile

    try:
        with tifffile.TiffFile(file) as tiff:
            return tiff_mpp(tiff)
    except Exception:  # its pixels may be readable all the same
        return None
