"""Images that can only be decoded whole: PNG, JPEG, and small TIFFs."""

from __future__ import annotations

from io import BufferedReader
from pathlib import Path

from PIL import JpegImagePlugin, PngImagePlugin, TiffImagePlugin

from nucseg.data.files import MAX_BYTES
from nucseg.data.images import MAX_PIXELS, decode_image
from nucseg.data.slides.slide import ArraySlide
from nucseg.errors import DataError
from nucseg.paths import opened_file


class WholeImage(ArraySlide):
    """An image that is decoded when it is opened; more than `MAX_PIXELS` are refused before."""

    reader = "pillow"

    def __init__(self, file: Path, mpp: float | None = None) -> None:
        """Decode a file by the rules of `nucseg.data.images`.

        Raises:
            DataError: it is too large, damaged, or holds what is no 8-bit image.
        """
        with opened_file(file) as stream:
            _check_extent(stream, file)
            stream.seek(0)
            data = stream.read(MAX_BYTES)
        super().__init__(decode_image(data, file), mpp)


def _check_extent(stream: BufferedReader, file: Path) -> None:
    width, height = extent(stream)
    if width * height > MAX_PIXELS:
        raise DataError(
            f"{file} has {width} x {height} pixels, and a {file.suffix[1:].upper()} can only be decoded whole: at most "
            f"{MAX_PIXELS:,} are. Convert it to a tiled TIFF, which is read tile by tile (`vips tiffsave IN OUT.tif "
            "--tile --pyramid --compression jpeg`, or QuPath's export)."
        )


def extent(stream: BufferedReader) -> tuple[int, int]:
    """Width and height as an image's header says; 0 where it cannot be read, and decoding will say why."""
    # the plugins are called directly, because Image.open decides by a global limit, with a warning, about size
    for plugin in (PngImagePlugin.PngImageFile, JpegImagePlugin.JpegImageFile, TiffImagePlugin.TiffImageFile):
        stream.seek(0)
        try:
            return plugin(stream).size
        except Exception:  # noqa: S112 - not of this kind, or damaged
            continue
    return 0, 0
