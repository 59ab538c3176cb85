"""TIFFs of any size, pyramids among them, read chunk by chunk."""

from __future__ import annotations

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

MOST_CHUNK_BYTES = 1 << 28
"""A tile or strip is decoded whole: more than this in one of them is refused."""

CACHE_BYTES = 1 << 27
"""Decoded chunks that are kept: neighbouring regions have some in common."""

_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _YCBCR = 0, 1, 2, 6
_COLOUR_MODELS = (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _YCBCR)
_JPEGS = (6, 7, 34892, 33007)
_PREMULTIPLIED, _ALPHA = 1, 2

_Values = npt.NDArray[np.uint8]


class TiffSlide(Slide):
    """A TIFF, OME-TIFF or any of the slide formats that are TIFFs."""

    reader = "tifffile"

    def __init__(self, file: Path) -> None:
        """Open a TIFF; no pixel is read.

        Raises:
            DataError: it is no TIFF, holds no 8-bit RGB or gray image, or chunks too large to be decoded.
        """
        import tifffile  # slow to import

        super().__init__()
        self._file = file
        try:
            self._tiff = tifffile.TiffFile(file)
        except Exception as cause:  # on damaged bytes it raises whatever its parser stumbles over
            raise _damaged(file, cause) from cause
        try:
            self._pages = [_page(level, file) for level in _levels(self._tiff, file)]
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
        try:
            samples = self._raw(page, y, x, h, w) if _is_raw(page) else self._decoded(level, y, x, h, w)
        except DataError:
            raise
        except Exception as cause:
            raise _damaged(self._file, cause) from cause
        return _rgb(samples, page.keyframe)

    def _raw(self, page: Any, y: int, x: int, h: int, w: int) -> _Values:
        """Pixels that lie in the file as they are, one row after the other: only those wanted are read."""
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

    def _decoded(self, level: int, y: int, x: int, h: int, w: int) -> _Values:
        frame = self._pages[level].keyframe
        n_planes, n_samples = _planes(frame)
        region = np.full((h, w, n_planes * n_samples), 255, np.uint8)
        for plane in range(n_planes):
            for index, top, left in _chunks_of(frame, plane, y, x, h, w):
                chunk = self._chunk(level, index)
                if chunk is None:  # slides leave chunks out where nothing was scanned
                    continue
                first_y, first_x = max(top, y), max(left, x)
                part = chunk[first_y - top : y + h - top, first_x - left : x + w - left]
                to = slice(first_y - y, first_y - y + len(part)), slice(first_x - x, first_x - x + part.shape[1])
                region[(*to, slice(plane * n_samples, (plane + 1) * n_samples))] = part
        return region

    def _chunk(self, level: int, index: int) -> _Values | None:
        """A decoded tile or strip (h, w, samples)."""
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
        while sum(one.nbytes for one in self._chunks.values()) > CACHE_BYTES and len(self._chunks) > 1:
            self._chunks.popitem(last=False)
        return chunk


def _levels(tiff: Any, file: Path) -> list[Any]:
    """The image and its smaller copies."""
    series = max(tiff.series, key=lambda one: math.prod(one.shape), default=None)
    if series is None:
        raise _damaged(file, ValueError("it has no pages"))
    shape = (series.keyframe.imagelength, series.keyframe.imagewidth)
    if len(series.pages) != 1 or math.prod(series.shape) != math.prod(shape) * series.keyframe.samplesperpixel:
        raise DataError(
            f"{file} holds {len(series.pages)} planes of {shape[1]} x {shape[0]} pixels (axes {series.axes}); one "
            "8-bit RGB or gray image is expected. Export the plane that you mean as RGB."
        )
    return list(series.levels)


def _page(level: Any, file: Path) -> Any:
    page = level.pages[0]
    frame = page.keyframe
    if frame.dtype != np.uint8 or frame.bitspersample != 8:
        raise DataError(
            f"{file} holds {frame.bitspersample}-bit {frame.dtype} pixels; 8-bit RGB or gray expected. Export it as "
            "8-bit RGB (scaling 16 bits down is a choice that only you can make)."
        )
    if frame.photometric not in (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _YCBCR) or frame.samplesperpixel not in (
        1,
        3,
        4,
    ):
        raise DataError(
            f"{file} holds {frame.samplesperpixel} channels of colour model {frame.photometric.name}; 8-bit RGB or "
            "gray is expected. Export it as RGB."
        )
    if frame.photometric == _YCBCR and frame.compression not in _JPEGS:
        raise DataError(f"{file} holds YCbCr that is not JPEG; 8-bit RGB or gray expected. Export it as RGB.")
    n_bytes = math.prod(_chunk_size(frame)) * frame.samplesperpixel
    if n_bytes > MOST_CHUNK_BYTES and not _is_raw(page):
        raise DataError(
            f"{file} is packed in chunks of {_chunk_size(frame)[1]} x {_chunk_size(frame)[0]} pixels, which can only "
            f"be decoded whole, and take {n_bytes:,} bytes each (at most {MOST_CHUNK_BYTES:,}). Convert it to a tiled "
            "TIFF (`vips tiffsave IN OUT.tif --tile --pyramid --compression jpeg`, or QuPath's export)."
        )
    _check_codec(frame, file)
    return page


def _check_codec(frame: Any, file: Path) -> None:
    if frame.compression == 1:
        return
    try:
        _ = frame.decode
        frame.decode(None, 0)  # of an empty chunk: what cannot be unpacked at all says so
    except Exception as cause:
        raise DataError(
            f"{file} is packed as {frame.compression.name}, which cannot be unpacked here ({cause}). "
            "`pip install 'nucseg[slides]'` brings imagecodecs, which can; or export it anew, deflate-packed."
        ) from cause


def _is_raw(page: Any) -> bool:
    """Whether the pixels lie in the file one after the other, as they are."""
    return bool(page.keyframe.is_contiguous) and page.keyframe.planarconfig == 1 and not page.keyframe.is_tiled


def _chunk_size(frame: Any) -> tuple[int, int]:
    if frame.is_tiled:
        return frame.tilelength, frame.tilewidth
    return min(frame.rowsperstrip or frame.imagelength, frame.imagelength), frame.imagewidth


def _planes(frame: Any) -> tuple[int, int]:
    """In how many planes the samples lie, and how many there are in each."""
    separate = frame.planarconfig == 2 and frame.samplesperpixel > 1
    return (frame.samplesperpixel, 1) if separate else (1, frame.samplesperpixel)


def _chunks_of(frame: Any, plane: int, y: int, x: int, h: int, w: int) -> Iterator[tuple[int, int, int]]:
    """Number, first row and first column of the chunks of a plane that a region touches."""
    height, width = _chunk_size(frame)
    n_down, n_across = -(-frame.imagelength // height), -(-frame.imagewidth // width)
    for row in range(y // height, (y + h - 1) // height + 1):
        for column in range(x // width, (x + w - 1) // width + 1):
            yield (plane * n_down + row) * n_across + column, row * height, column * width


def _rgb(samples: _Values, frame: Any) -> Image:
    """(h, w, 3) of samples as they are stored; transparent ones are laid on white, as `nucseg.data.images` does."""
    if frame.photometric == _WHITE_IS_ZERO:
        samples = ~samples
    if samples.shape[2] == 1:
        return np.repeat(samples, 3, axis=2)
    colours = samples[..., :3]
    kind = int(frame.extrasamples[0]) if frame.extrasamples else 0
    if samples.shape[2] == 3 or kind not in (_PREMULTIPLIED, _ALPHA):
        return np.ascontiguousarray(colours)
    alpha = samples[..., 3:].astype(np.uint16)
    shown = colours.astype(np.uint16) * 255 if kind == _PREMULTIPLIED else colours * alpha
    return ((shown + (255 - alpha) * 255 + 127) // 255).clip(0, 255).astype(np.uint8)


def _damaged(file: Path, cause: Exception) -> DataError:
    return DataError(
        f"{file} cannot be read ({cause or type(cause).__name__}). It is damaged, cut short or packed in an unusual "
        "way: fetch it or export it again."
    )
