"""Images that are decoded as a whole: PNG, JPEG, and small TIFFs."""

from io import BufferedReader
from pathlib import Path

from PIL import JpegImagePlugin, PngImagePlugin, TiffImagePlugin

from nucseg.data.files import MAX_BYTES
from nucseg.data.images import MAX_PIXELS, decode_image
from nucseg.data.slides.slide import ArraySlide
from nucseg.errors import DataError
from nucseg.paths import opened_file


class InMemoryImage(ArraySlide):
    """An image that is decoded when it is opened, if it has at most `MAX_PIXELS`."""

    reader = "pillow"

    def __init__(self, file: Path, mpp: float | None = None) -> None:
        """Decode a file as in `nucseg.data.images`.

        Raises:
            DataError: it is too large, damaged, or not an 8-bit image.
        """
        with opened_file(file) as stream:
            _check_size(stream, file)
            stream.seek(0)
            data = stream.read(MAX_BYTES)
        super().__init__(decode_image(data, file), mpp)


def _check_size(stream: BufferedReader, file: Path) -> None:
    width, height = header_size(stream)
    if width * height > MAX_PIXELS:
        raise DataError(
            f"{file} has {width} x {height} pixels, but a {file.suffix[1:].upper()} must be decoded as a whole, which "
            f"is limited to {MAX_PIXELS:,} pixels. Convert it to a tiled TIFF (`vips tiffsave IN OUT.tif --tile "
            "--pyramid --compression jpeg`, or QuPath's export)."
        )


def header_size(stream: BufferedReader) -> tuple[int, int]:
    """Width and height in the header of an image; 0 if it cannot be read, which decoding will explain."""
    # call the plugins directly, because Image.open applies a global size limit with a warning
    for plugin in (PngImagePlugin.PngImageFile, JpegImagePlugin.JpegImageFile, TiffImagePlugin.TiffImageFile):
        stream.seek(0)
        try:
            return plugin(stream).size
        except Exception:  # noqa: S112 - another format, or damaged
            continue
    return 0, 0
