"""Images that are decoded as a whole: PNG, JPEG, BMP and WebP."""

from io import BufferedReader
from pathlib import Path

from PIL import BmpImagePlugin, ExifTags, Image, JpegImagePlugin, PngImagePlugin, WebPImagePlugin
from PIL.ImageFile import ImageFile

from nucseg.data.files import MAX_BYTES
from nucseg.data.images import MAX_PIXELS, decode_image
from nucseg.data.slides.slide import ArraySlide, orientation_note
from nucseg.errors import DataError
from nucseg.paths import opened_file

_PLUGINS = (
    PngImagePlugin.PngImageFile,
    JpegImagePlugin.JpegImageFile,
    BmpImagePlugin.BmpImageFile,
    WebPImagePlugin.WebPImageFile,
)


class InMemoryImage(ArraySlide):
    """An image that is decoded when it is opened, if it has at most `MAX_PIXELS`."""

    reader = "pillow"

    def __init__(self, file: Path, convert: str = "none") -> None:
        """Decode a file as in `nucseg.data.images`.

        Raises:
            DataError: it is too large, damaged, or not an 8-bit image.
        """
        with opened_file(file) as stream:
            header = _header(stream)
            _check_size(header, file)
            stream.seek(0)
            data = stream.read(MAX_BYTES)
        super().__init__(decode_image(data, file, convert))
        self.notes = tuple(filter(None, [orientation_note(_exif_orientation(header))]))


def _header(stream: BufferedReader) -> ImageFile | None:
    """An image of which only the header is read; None if it cannot be read, which decoding will explain."""
    # call the plugins directly, because Image.open applies a global size limit with a warning
    for plugin in _PLUGINS:
        stream.seek(0)
        try:
            return plugin(stream)
        except Exception:  # noqa: S112 - another format, or damaged
            continue
    return None


def _check_size(header: ImageFile | None, file: Path) -> None:
    if header is not None and header.width * header.height > MAX_PIXELS:
        raise DataError(
            f"{file} has {header.width} x {header.height} pixels, but a {file.suffix[1:].upper()} must be decoded as a "
            f"whole, which is limited to {MAX_PIXELS:,} pixels. Convert it to a tiled TIFF (`vips tiffsave IN OUT.tif "
            "--tile --pyramid --compression jpeg`, or QuPath's export)."
        )


def _exif_orientation(header: ImageFile | None) -> object:
    data = b"" if header is None else header.info.get("exif", b"")
    exif = Image.Exif()
    try:
        exif.load(data)
    except Exception:  # damaged metadata say nothing about the pixels
        return None
    return exif.get(ExifTags.Base.Orientation)
