"""Decode the pages of TIFFs, for images, masks and slides alike: the same pixels whatever the size of the file.

Pixels are read as they are stored. The Orientation tag and colour profiles are not applied, as in ImageJ and tifffile,
so that an image agrees with its mask, and coordinates with those of other programs. The page's own tags decide on the
conversion to RGB, never the file's suffix.
"""

import logging
import struct
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nucseg.data.colours import Pixels, alpha_on_white, from_cmyk, from_ycbcr
from nucseg.data.conversion import to_eight_bits
from nucseg.data.mask_values import webp_chunks
from nucseg.errors import DataError

MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""The first bytes of a TIFF or BigTIFF, in either byte order."""

_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _CMYK, _YCBCR = 0, 1, 2, 3, 5, 6
_COLOURS = {_WHITE_IS_ZERO: 1, _BLACK_IS_ZERO: 1, _PALETTE: 1, _RGB: 3, _YCBCR: 3, _CMYK: 4}
"""Colour model -> its number of channels, without alpha."""
_PREMULTIPLIED, _ALPHA = 1, 2
_DEPTHS = (1, 2, 4, 8)

_UNCOMPRESSED, _WEBP = 1, 50001
_JPEGS = (6, 7, 34892, 33007)
_APERIO_YCBCR, _APERIO_RGB = 33003, 33005
_JPEG2000 = (_APERIO_YCBCR, 33004, _APERIO_RGB, 34712)
_LOSSLESS = (_UNCOMPRESSED, 2, 3, 4, 5, 8, 32773, 32946, 34925, 34926, 34933, 50000, 50013)
"""CCITT, LZW, deflate, PackBits, LZMA, Zstandard and PNG, some of them under two numbers."""
_J2K_CODING_STYLE, _J2K_TRANSFORM = b"\xff\x52", 13
_J2K_SIZE, _J2K_STEP = b"\xff\x51", 44
"""Markers of a JPEG 2000 codestream with offsets after them: of the transform, where 1 is the reversible one, and of
the horizontal step of the second component, where 1 is full resolution."""

_PIXEL_TAGS = (
    256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 284, 317, 320, 322, 323, 324, 325, 338, 339, 347, 530,
)  # fmt: skip
"""Size, depth, compression, colour model, fill order, chunks, channels, planes, predictor, palette, alpha, sign, JPEG
tables and chroma subsampling."""
_JPEG_TABLES = 347

_KINDS = {"b": "unsigned", "u": "unsigned", "i": "signed", "f": "float", "c": "complex"}
_EXPECTED = "expected 8-bit RGB, gray or palette"

# tifffile logs problems in damaged files, which would be printed in addition to the error raised here
logging.getLogger("tifffile").addHandler(logging.NullHandler())


def check_image(frame: Any, file: Path, convert: str = "none") -> None:
    """Raise DataError, which names the reason, unless a page can become RGB without loss or as `convert` says."""
    _check_tags(frame, file)
    bits, kind = frame.bitspersample, _KINDS.get(frame.dtype.kind if frame.dtype else "", "unknown")
    is_deep = kind == "float" or (kind == "unsigned" and isinstance(bits, int) and bits > 8)
    if not (bits in _DEPTHS and kind == "unsigned") and not (convert != "none" and is_deep):
        raise DataError(f"{file} has {bits}-bit {kind} pixels; {_EXPECTED}. {advice(is_deep)}")
    if frame.photometric == _CMYK and convert == "none":
        raise DataError(
            f"{file} has {frame.samplesperpixel} channels of colour model {_name(frame.photometric)}; {_EXPECTED}. "
            f"{advice(True)}"
        )
    if frame.photometric == _PALETTE and frame.colormap is None:
        raise DataError(f"{file} is a palette image, but its palette is missing; {_EXPECTED}. Export it as RGB.")
    n_extra = frame.samplesperpixel - _COLOURS.get(frame.photometric, frame.samplesperpixel + 1)
    if n_extra == 1 and frame.samplesperpixel == 2 and not _alpha(frame):
        raise DataError(f"{file} has a second channel of unknown meaning; {_EXPECTED}. Export it as RGB or gray.")
    if n_extra not in (0, 1) or frame.imagedepth > 1:
        raise DataError(
            f"{file} has {frame.samplesperpixel} channels of colour model {_name(frame.photometric)}; {_EXPECTED}. "
            "Export it as RGB."
        )
    if frame.compression in _JPEG2000:
        frame.subsampling = (1, 1)  # its codestream says it; tifffile would refuse what the tag says, or its default
    if frame.is_subsampled and (frame.compression not in _JPEGS or frame.planarconfig == 2):
        raise DataError(
            f"{file} is YCbCr but not JPEG, with chroma subsampling, which cannot be decoded; {_EXPECTED}. Export it "
            "as RGB."
        )
    check_codec(frame, file)


def advice(is_convertible: bool) -> str:
    """The way out for an image of more than 8 bits or another colour model."""
    option = ", or convert it with --convert full-range if its values fill the range of their type"
    return f"Export it as 8-bit RGB{option if is_convertible else ' (only you can decide how to scale its values)'}."


def check_codec(frame: Any, file: Path) -> None:
    """Raise DataError, which names the compression of a page, if there is no decoder for it."""
    if frame.compression == _UNCOMPRESSED:
        return
    try:
        frame.decode(None, 0)  # an empty chunk raises an error only if there is no decoder
    except Exception as cause:
        raise DataError(
            f"{file} is compressed with {_name(frame.compression)}, which cannot be decoded ({cause}). Export it with "
            "deflate or LZW compression."
        ) from cause


def mask_values(page: Any, file: Path) -> npt.NDArray[Any]:
    """The numbers stored in a page, (H, W) or (H, W, C), without palette or inversion.

    Raises:
        DataError: lossy compression, no decoder, two channels, or a truncated file.
    """
    _check_tags(page, file)
    if page.samplesperpixel == 2 and not _alpha(page):
        raise DataError(f"{file} has two channels, but a mask has one. Save the channel with the nuclei.")
    check_codec(page, file)
    if page.compression not in _LOSSLESS and not _is_reversible(page):
        raise DataError(
            f"{file} is compressed with {_name(page.compression)}, which may be lossy and change ids. Save masks as "
            "PNG, or as TIFF with deflate or LZW compression."
        )
    values = np.asarray(page.asarray())
    separate = page.planarconfig == 2 and values.ndim == 3
    return np.moveaxis(values, 0, -1) if separate else values


def page_rgb(page: Any) -> Pixels:
    """Decode a page, checked by `check_image`, to RGB (H, W, 3)."""
    frame = page.keyframe
    return region_rgb(frame, 0, 0, frame.imagelength, frame.imagewidth, partial(chunk_rgb, page))


def region_rgb(frame: Any, y: int, x: int, h: int, w: int, chunk: Callable[[int, int], Pixels | None]) -> Pixels:
    """Put a region (h, w, 3) together from chunks, which are tiles or strips.

    `chunk(row, column)` is a decoded chunk as from `chunk_rgb`; None is white.
    """
    height, width = chunk_size(frame)
    region = np.full((h, w, 3), 255, np.uint8)
    for row, column in _chunks_of(height, width, y, x, h, w):
        pixels = chunk(row, column)
        if pixels is None:
            continue
        top, left = row * height, column * width
        first_y, first_x = max(top, y), max(left, x)
        part = pixels[first_y - top : y + h - top, first_x - left : x + w - left]
        region[first_y - y : first_y - y + len(part), first_x - x : first_x - x + part.shape[1]] = part
    return region


def chunk_rgb(page: Any, row: int, column: int) -> Pixels | None:
    """Decode a tile or strip to RGB (h, w, 3). None if it is not in the file: slides omit what was not scanned."""
    frame = page.keyframe
    height, width = chunk_size(frame)
    n_down, n_across = -(-frame.imagelength // height), -(-frame.imagewidth // width)
    n_planes = frame.samplesperpixel if frame.planarconfig == 2 else 1
    planes = [_decoded(page, (plane * n_down + row) * n_across + column) for plane in range(n_planes)]
    present = [plane for plane in planes if plane is not None]
    if len(present) < n_planes:
        return None
    return to_rgb(present[0] if n_planes == 1 else np.concatenate(present, axis=2), frame)


def chunk_size(frame: Any) -> tuple[int, int]:
    """(H, W) of a tile or strip."""
    if frame.is_tiled:
        return frame.tilelength, frame.tilewidth
    return min(frame.rowsperstrip or frame.imagelength, frame.imagelength), frame.imagewidth


def palette(frame: Any) -> Pixels | None:
    """Colours (N, 3) of a page's palette; None if it has none.

    Palettes have 16 bits, but some programs write 8, as libtiff also assumes.
    """
    if frame.photometric != _PALETTE or frame.colormap is None:
        return None
    colours = np.asarray(frame.colormap).T
    return np.asarray(colours if colours.max() < 256 else colours >> 8, np.uint8)


def to_rgb(samples: npt.NDArray[Any], frame: Any) -> Pixels:
    """Convert the samples (h, w, C) of a page to RGB (h, w, 3); transparency is composited on white."""
    n_colours = _COLOURS[frame.photometric]
    stored, alpha = samples[..., :n_colours], samples[..., n_colours : n_colours + 1]
    if (entries := palette(frame)) is not None:
        colours = entries[stored[..., 0].astype(np.intp)]
    else:
        colours = _eight_bits(stored, frame)
    if frame.photometric == _WHITE_IS_ZERO:
        colours = ~colours
    if frame.photometric == _CMYK:
        colours = from_cmyk(colours)
    if _is_ycbcr(frame):
        colours = from_ycbcr(colours)
    rgb = np.repeat(colours, 3, axis=2) if colours.shape[2] == 1 else np.ascontiguousarray(colours)
    kind = _alpha(frame)
    return alpha_on_white(rgb, _eight_bits(alpha, frame), premultiplied=kind == _PREMULTIPLIED) if kind else rgb


def _decoded(page: Any, index: int) -> npt.NDArray[Any] | None:
    """The stored samples (h, w, samples) of a chunk; of a plane if planes are stored separately."""
    n_bytes = page.databytecounts[index]
    if not n_bytes:
        return None
    frame, handle, options = page.keyframe, page.parent.filehandle, {}
    handle.seek(page.dataoffsets[index])
    coded = handle.read(n_bytes)
    if frame.compression in _JPEGS:
        options = {"jpegtables": page.jpegtables, "jpegheader": frame.jpegheader}
    decoded, _, shape = frame.decode(coded, index, **options)
    if decoded is None:
        return None
    samples = np.asarray(decoded)[0, : shape[1], : shape[2]]
    is_ycbcr = samples.shape[2] == 3 and _is_ycbcr_jpeg2000(frame, coded)
    return from_ycbcr(_eight_bits(samples, frame)) if is_ycbcr else samples


def _chunks_of(height: int, width: int, y: int, x: int, h: int, w: int) -> Iterator[tuple[int, int]]:
    """Row and column of the chunks that a region touches."""
    for row in range(y // height, (y + h - 1) // height + 1):
        for column in range(x // width, (x + w - 1) // width + 1):
            yield row, column


def _eight_bits(samples: npt.NDArray[Any], frame: Any) -> Pixels:
    is_done = samples.dtype == np.uint8 and frame.bitspersample >= 8
    return samples if is_done else to_eight_bits(samples, frame.bitspersample)


def _is_ycbcr(frame: Any) -> bool:
    """Whether samples are YCbCr although their codec could convert them to RGB."""
    codec_converts = frame.compression in (*_JPEGS, *_JPEG2000, _WEBP) and frame.planarconfig == 1
    return frame.photometric == _YCBCR and not (codec_converts and not frame.extrasamples)


def _is_ycbcr_jpeg2000(frame: Any, coded: bytes) -> bool:
    """Whether decoded JPEG 2000 is YCbCr: Aperio's numbers of the codec say so, else the tag of the colour model.

    imagecodecs converts a codestream to RGB only if its chroma is subsampled.
    """
    if frame.compression not in _JPEG2000 or frame.compression == _APERIO_RGB:
        return False
    size = coded.find(_J2K_SIZE)
    is_subsampled = size >= 0 and coded[size + _J2K_STEP : size + _J2K_STEP + 1] != b"\1"
    return (frame.compression == _APERIO_YCBCR or frame.photometric == _YCBCR) and not is_subsampled


def _alpha(frame: Any) -> int:
    """Kind of the channel after the colours if it is transparency, else 0. Without a tag, a fourth channel is."""
    if frame.samplesperpixel <= _COLOURS.get(frame.photometric, frame.samplesperpixel):
        return 0
    kind = int(frame.extrasamples[0]) if frame.extrasamples else _ALPHA * (frame.samplesperpixel == 4)
    return kind if kind in (_PREMULTIPLIED, _ALPHA) else 0


def _check_tags(page: Any, file: Path) -> None:
    """Raise DataError if tags that pixels depend on cannot be read; tifffile goes on with defaults or wrong values."""
    handle, form = page.parent.filehandle, page.parent.tiff
    handle.seek(page.offset)
    (n_tags,) = struct.unpack(form.tagnoformat, handle.read(form.tagnosize))
    entries = handle.read(n_tags * form.tagsize)
    codes = {
        int.from_bytes(entries[start : start + 2], "little" if form.byteorder == "<" else "big")
        for start in range(0, n_tags * form.tagsize, form.tagsize)
    }
    if len(entries) < n_tags * form.tagsize or any(code in codes and code not in page.tags for code in _PIXEL_TAGS):
        raise DataError(
            f"{file} is damaged or truncated: some of its tags cannot be read. Download or export it again."
        )
    tags = [page.tags[code] for code in _PIXEL_TAGS if code in page.tags and code != _JPEG_TABLES]
    if wrong := [tag.name for tag in tags if isinstance(tag.value, bytes)]:
        raise DataError(
            f"{file} has the tag {wrong[0]} in bytes, which is not read; expected 16-bit or 32-bit integers. Export it "
            "with another program."
        )


def _is_reversible(page: Any) -> bool:
    """Whether the first chunk of a mask in JPEG 2000 or WebP is coded without loss."""
    handle = page.parent.filehandle
    handle.seek(page.dataoffsets[0])
    coded = handle.read(page.databytecounts[0])
    if page.compression == _WEBP:
        return b"VP8L" in webp_chunks(coded)
    style = coded.find(_J2K_CODING_STYLE)
    is_coded = page.compression in _JPEG2000 and style >= 0
    return is_coded and coded[style + _J2K_TRANSFORM : style + _J2K_TRANSFORM + 1] == b"\1"


def _name(value: Any) -> str:
    return str(getattr(value, "name", value))
