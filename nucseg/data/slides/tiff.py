"""TIFFs of any size, including pyramids, read chunk by chunk.

tifffile's own zarr view of a level would be shorter, but has no cache of decoded chunks and decodes an uncompressed
image in one strip as a whole: measured on 10,000 x 10,000 pixels, neighbouring regions take 2.5 to 4 times as long on
tiled files, 50 times on strips, and 150 times, with the whole image in memory, on an uncompressed file.
"""

import math
import os
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nucseg.data.slides.resolution import tiff_mpp
from nucseg.data.slides.slide import Image, Slide
from nucseg.errors import DataError, NucsegError

MAX_CHUNK_BYTES = 1 << 28
"""Largest tile or strip; each is decoded as a whole."""

CACHE_BYTES = 1 << 27
"""Size of the cache of decoded chunks, which neighbouring regions share."""

_UNCOMPRESSED = 1
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _YCBCR = 0, 1, 2, 6
_COLOUR_MODELS = (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _YCBCR)
_JPEGS = (6, 7, 34892, 33007)
_PREMULTIPLIED, _ALPHA = 1, 2

_Values = npt.NDArray[np.uint8]


class TiffSlide(Slide):
    """A TIFF, an OME-TIFF, or a slide in one of the formats based on TIFF."""

    reader = "tifffile"

    def __init__(self, file: Path) -> None:
        """Open a TIFF without reading pixels.

        Raises:
            DataError: it is not a TIFF, has no 8-bit RGB or gray image, or chunks that are too large or not decodable.
        """
        import tifffile  # slow to import

        super().__init__()
        self._file = file
        try:
            self._tiff = tifffile.TiffFile(file)
        except Exception as cause:  # for damaged files, it raises errors of many types
            raise _damaged(file, cause) from cause
        try:
            self._pages = [_checked_page(level, file) for level in _levels(self._tiff, file)]
            self.levels = [(page.keyframe.imagelength, page.keyframe.imagewidth) for page in self._pages]
            self.mpp = tiff_mpp(self._tiff)
        except BaseException as cause:
            self._tiff.close()
            if isinstance(cause, NucsegError) or not isinstance(cause, Exception):
                raise
            raise _damaged(file, cause) from cause
        self._chunks: OrderedDict[tuple[int, int], _Values] = OrderedDict()

    def close(self) -> None:
        """See `Slide.close`."""
        self._tiff.close()

    def _read_level(self, level: int, y: int, x: int, h: int, w: int) -> Image:
        page = self._pages[level]
        read = self._read_uncompressed if _is_uncompressed(page.keyframe) else self._read_chunks
        try:
            return _to_rgb(read(level, y, x, h, w), page.keyframe)
        except DataError:
            raise
        except Exception as cause:
            raise _damaged(self._file, cause) from cause

    def _read_uncompressed(self, level: int, y: int, x: int, h: int, w: int) -> _Values:
        """Read only the required part of each row of the file."""
        page = self._pages[level]
        width, n_samples = page.keyframe.imagewidth, page.keyframe.samplesperpixel
        region = np.empty((h, w * n_samples), np.uint8)
        descriptor = self._tiff.filehandle.fileno()
        for row in range(h):
            start = page.dataoffsets[0] + ((y + row) * width + x) * n_samples
            content = os.pread(descriptor, w * n_samples, start)
            if len(content) < w * n_samples:
                raise _damaged(self._file, ValueError("it ends in the middle of the image"))
            region[row] = np.frombuffer(content, np.uint8)
        return region.reshape(h, w, n_samples)

    def _read_chunks(self, level: int, y: int, x: int, h: int, w: int) -> _Values:
        frame = self._pages[level].keyframe
        n_planes, n_samples = _planes(frame)
        region = np.full((h, w, n_planes * n_samples), 255, np.uint8)
        for plane in range(n_planes):
            for index, top, left in _chunks_of(frame, plane, y, x, h, w):
                chunk = self._chunk(level, index)
                if chunk is None:  # slides omit chunks that were not scanned
                    continue
                first_y, first_x = max(top, y), max(left, x)
                part = chunk[first_y - top : y + h - top, first_x - left : x + w - left]
                target = slice(first_y - y, first_y - y + len(part)), slice(first_x - x, first_x - x + part.shape[1])
                region[(*target, slice(plane * n_samples, (plane + 1) * n_samples))] = part
        return region

    def _chunk(self, level: int, index: int) -> _Values | None:
        """Decode a tile or strip (h, w, samples), or take it from the cache; None if it is not in the file."""
        if (level, index) in self._chunks:
            self._chunks.move_to_end((level, index))
            return self._chunks[level, index]
        page = self._pages[level]
        n_bytes = page.databytecounts[index]
        if not n_bytes:
            return None
        handle, options = self._tiff.filehandle, {}
        handle.seek(page.dataoffsets[index])
        if page.keyframe.compression in _JPEGS:
            options = {"jpegtables": page.jpegtables, "jpegheader": page.keyframe.jpegheader}
        decoded, _, shape = page.keyframe.decode(handle.read(n_bytes), index, **options)
        if decoded is None:
            return None
        chunk: _Values = np.asarray(decoded)[0, : shape[1], : shape[2]]
        self._chunks[level, index] = chunk
        while sum(cached.nbytes for cached in self._chunks.values()) > CACHE_BYTES and len(self._chunks) > 1:
            self._chunks.popitem(last=False)
        return chunk


def _levels(tiff: Any, file: Path) -> list[Any]:
    """The levels of the largest series: the image and its smaller copies."""
    series = max(tiff.series, key=lambda series: math.prod(series.shape), default=None)
    if series is None:
        raise _damaged(file, ValueError("it has no pages"))
    shape = (series.keyframe.imagelength, series.keyframe.imagewidth)
    if len(series.pages) != 1 or math.prod(series.shape) != math.prod(shape) * series.keyframe.samplesperpixel:
        raise DataError(
            f"{file} has {len(series.pages)} planes of {shape[1]} x {shape[0]} pixels (axes {series.axes}); expected "
            "one 8-bit RGB or gray image. Export the right plane as RGB."
        )
    return list(series.levels)


def _checked_page(level: Any, file: Path) -> Any:
    """Return the page of a level if its pixels can be read."""
    page = level.pages[0]
    frame = page.keyframe
    if frame.dtype != np.uint8 or frame.bitspersample != 8:
        raise DataError(
            f"{file} has {frame.bitspersample}-bit {frame.dtype} pixels; expected 8-bit RGB or gray. Export it as "
            "8-bit RGB (only you can decide how to scale 16 bits down)."
        )
    if frame.photometric not in _COLOUR_MODELS or frame.samplesperpixel not in (1, 3, 4):
        raise DataError(
            f"{file} has {frame.samplesperpixel} channels of colour model {frame.photometric.name}; expected 8-bit RGB "
            "or gray. Export it as RGB."
        )
    if frame.photometric == _YCBCR and frame.compression not in _JPEGS:
        raise DataError(f"{file} is YCbCr but not JPEG; expected 8-bit RGB or gray. Export it as RGB.")
    height, width = _chunk_size(frame)
    n_bytes = height * width * frame.samplesperpixel
    if n_bytes > MAX_CHUNK_BYTES and not _is_uncompressed(frame):
        raise DataError(
            f"{file} is compressed in chunks of {width} x {height} pixels, which must be decoded as a whole and take "
            f"{n_bytes:,} bytes each (at most {MAX_CHUNK_BYTES:,}). Convert it to a tiled TIFF (`vips tiffsave IN "
            "OUT.tif --tile --pyramid --compression jpeg`, or QuPath's export)."
        )
    _check_codec(frame, file)
    return page


def _check_codec(frame: Any, file: Path) -> None:
    if frame.compression == _UNCOMPRESSED:
        return
    try:
        frame.decode(None, 0)  # an empty chunk raises an error only if there is no decoder
    except Exception as cause:
        raise DataError(
            f"{file} is compressed with {frame.compression.name}, which cannot be decoded here ({cause}). Run `pip "
            "install 'nucseg[slides]'`, which adds the codecs of imagecodecs, or export it with deflate compression."
        ) from cause


def _is_uncompressed(frame: Any) -> bool:
    """Whether all pixels are stored in one piece, uncompressed, row by row."""
    return bool(frame.is_contiguous) and frame.planarconfig == 1 and not frame.is_tiled


def _chunk_size(frame: Any) -> tuple[int, int]:
    """(H, W) of a tile or strip."""
    if frame.is_tiled:
        return frame.tilelength, frame.tilewidth
    return min(frame.rowsperstrip or frame.imagelength, frame.imagelength), frame.imagewidth


def _planes(frame: Any) -> tuple[int, int]:
    """Number of planes, and of samples in each."""
    separate = frame.planarconfig == 2 and frame.samplesperpixel > 1
    return (frame.samplesperpixel, 1) if separate else (1, frame.samplesperpixel)


def _chunks_of(frame: Any, plane: int, y: int, x: int, h: int, w: int) -> Iterator[tuple[int, int, int]]:
    """Index, first row and first column of the chunks of a plane that a region touches."""
    height, width = _chunk_size(frame)
    n_down, n_across = -(-frame.imagelength // height), -(-frame.imagewidth // width)
    for row in range(y // height, (y + h - 1) // height + 1):
        for column in range(x // width, (x + w - 1) // width + 1):
            yield (plane * n_down + row) * n_across + column, row * height, column * width


def _to_rgb(samples: _Values, frame: Any) -> Image:
    """Convert stored samples to RGB (h, w, 3); transparency is composited on white, as in `nucseg.data.images`."""
    if frame.photometric == _WHITE_IS_ZERO:
        samples = ~samples
    if samples.shape[2] == 1:
        return np.repeat(samples, 3, axis=2)
    colours = samples[..., :3]
    kind = int(frame.extrasamples[0]) if frame.extrasamples else 0
    if samples.shape[2] == 3 or kind not in (_PREMULTIPLIED, _ALPHA):
        return np.ascontiguousarray(colours)
    alpha = samples[..., 3:].astype(np.uint16)
    weighted = colours.astype(np.uint16) * 255 if kind == _PREMULTIPLIED else colours * alpha
    return ((weighted + (255 - alpha) * 255 + 127) // 255).clip(0, 255).astype(np.uint8)


def _damaged(file: Path, cause: Exception) -> DataError:
    return DataError(
        f"{file} cannot be read ({cause or type(cause).__name__}). It is damaged, truncated or compressed in an "
        "unsupported way: download or export it again."
    )
