"""Choose the reader for an image file."""

from pathlib import Path

from nucseg.data.conversion import check_conversion
from nucseg.data.files import IMAGE_SUFFIXES
from nucseg.data.slides.file_set import files_of
from nucseg.data.slides.in_memory import InMemoryImage
from nucseg.data.slides.openslide_reader import ScannerSlide, openslide_library
from nucseg.data.slides.scenes import choose_scene
from nucseg.data.slides.slide import Slide
from nucseg.data.slides.tiff import TiffSlide, tiff_scenes
from nucseg.data.tiff import MAGIC
from nucseg.errors import DataError
from nucseg.paths import as_path, opened_file

SCANNER_SUFFIXES = (".svs", ".ndpi", ".mrxs", ".scn", ".vms", ".vmu", ".svslide", ".bif")
"""Formats of slide scanners."""

SLIDE_SUFFIXES = (*IMAGE_SUFFIXES, *SCANNER_SUFFIXES)
"""Suffixes of the files that count as images."""

_ONLY, _PLAIN_TIFF = ["1"], "generic-tiff"


def open_slide(file: Path | str, scene: str | int | None = None, convert: str = "none") -> Slide:
    """Open an image of any size: PNG, JPEG, BMP, WebP, TIFF, OME-TIFF, or any format of OpenSlide.

    Args:
        file: the image.
        scene: name or number (from 1) of the image in a file with several, see `scene_names`; None opens an only one.
        convert: how images of more than 8 bits are read, see `nucseg.data.conversion`.

    Raises:
        ConfigError: there is no such conversion.
        DataError: the file is missing, damaged, or not an 8-bit RGB or gray image, or its library is not installed; or
            it has several scenes and none is named, or not the one that is.
    """
    check_conversion(convert)
    file = as_path(file)
    slide = _opened(file, scene, convert)
    slide.files = slide.files or files_of(file)
    return slide


def scene_names(file: Path) -> list[str]:
    """The scenes in a file, if it has several: images of the same kind, without overviews. Raises as `open_slide`."""
    names = [] if _needs_openslide(file) or not _is_tiff(file) else tiff_scenes(file)
    return names if len(names) > 1 else []


def _opened(file: Path, scene: str | int | None, convert: str) -> Slide:
    if _needs_openslide(file):
        choose_scene(_ONLY, scene, file)
        return ScannerSlide(file, openslide_library())
    if _is_tiff(file):
        return TiffSlide(file, scene, convert)
    choose_scene(_ONLY, scene, file)
    return InMemoryImage(file, convert)


def _needs_openslide(file: Path) -> bool:
    """Whether to read a file with OpenSlide. TIFFs that it only knows as such, or without it, are read like others."""
    is_tiff = _is_tiff(file)
    if file.suffix.lower() not in SCANNER_SUFFIXES:
        return False
    openslide = openslide_library()
    vendor = openslide.OpenSlide.detect_format(str(file)) if openslide else None
    if is_tiff and vendor in (None, _PLAIN_TIFF):
        return False
    if vendor is not None:
        return True
    advice = "It cannot read this file: is it damaged?" if openslide else "Run `pip install 'nucseg[slides]'`."
    raise DataError(f"{file} is not a TIFF, and other slide formats need OpenSlide. {advice}")


def _is_tiff(file: Path) -> bool:
    try:
        with opened_file(file) as stream:
            return stream.read(4) in MAGIC
    except OSError as cause:
        raise DataError(f"{file} cannot be read: {cause.strerror}. Give an image, or a folder of images.") from cause
