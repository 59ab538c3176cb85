"""TIFFs of any size, including pyramids, read chunk by chunk.

tifffile's own zarr view of a level would be shorter, but has no cache of decoded chunks and decodes an uncompressed
image in one strip as a whole: measured on 10,000 x 10,000 pixels, neighbouring regions take 2.5 to 4 times as long on
tiled files, 50 times on strips, and 150 times, with the whole image in memory, on an uncompressed file.
"""

import os
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np

from nucseg.data.conversion import OutOfRangeError
from nucseg.data.slides.scenes import Scene, choose_scene, find_scenes
from nucseg.data.slides.slide import Image, Slide, orientation_note
from nucseg.data.tiff import check_image, chunk_rgb, chunk_size, region_rgb, to_rgb
from nucseg.errors import DataError, NucsegError

MAX_CHUNK_BYTES = 1 << 28
"""Largest tile or strip; each is decoded as a whole."""

CACHE_BYTES = 1 << 27
"""Size of the cache of decoded chunks, which neighbouring regions share."""

_ORIENTATION = 274


class TiffSlide(Slide):
    """A TIFF, an OME-TIFF, or a slide in one of the formats based on TIFF."""

    reader = "tifffile"

    def __init__(self, file: Path, scene: str | int | None = None, convert: str = "none") -> None:
        """Open a TIFF without reading pixels.

        Args:
            file: the TIFF.
            scene: name or number (from 1) of the scene; None opens an only one.
            convert: how pixels of more than 8 bits are read, see `nucseg.data.conversion`.

        Raises:
            DataError: it is not a TIFF, has no 8-bit RGB or gray image, or chunks that are too large or not decodable;
                there is no such scene, or several if none is named.
        """
        super().__init__()
        self._file, self._convert = file, convert
        self._tiff = _opened(file)
        try:
            scenes = find_scenes(self._tiff, file)
            self._use(scenes[choose_scene([found.name for found in scenes], scene, file)], len(scenes) > 1)
        except BaseException as cause:
            self._tiff.close()
            if isinstance(cause, NucsegError) or not isinstance(cause, Exception):
                raise
            raise _damaged(file, cause) from cause
        self._chunks: OrderedDict[tuple[int, int, int], Image | None] = OrderedDict()

    def _use(self, scene: Scene, has_others: bool) -> None:
        for page in scene.levels:
            if page.parent.filehandle.closed:  # another file of the same OME data set
                page.parent.filehandle.open()
            _check_page(page.keyframe, self._file, self._convert)
        self._pages = scene.levels
        read = {Path(page.parent.filehandle.path) for page in scene.levels}
        if others := sorted(read - {Path(self._tiff.filehandle.path)}):
            self.files = self._file, *others
        self.levels = [(page.keyframe.imagelength, page.keyframe.imagewidth) for page in scene.levels]
        self.mpp = scene.resolution.mpp
        self.scene = scene.name if has_others else None
        self.notes = tuple(filter(None, (scene.resolution.note, _orientation(scene), _left_out(scene))))

    def close(self) -> None:
        """See `Slide.close`."""
        self._tiff.close()

    def _read_level(self, level: int, y: int, x: int, h: int, w: int) -> Image:
        page = self._pages[level]
        try:
            if _is_uncompressed(page.keyframe):
                return self._read_uncompressed(page, y, x, h, w)
            return region_rgb(page.keyframe, y, x, h, w, lambda row, column: self._chunk(level, row, column))
        except DataError:
            raise
        except OutOfRangeError as cause:
            raise DataError(f"{self._file} cannot be converted: {cause}.") from cause
        except Exception as cause:
            raise _damaged(self._file, cause) from cause

    def _read_uncompressed(self, page: Any, y: int, x: int, h: int, w: int) -> Image:
        """Read only the required part of each row of the file."""
        width, n_samples = page.keyframe.imagewidth, page.keyframe.samplesperpixel
        region = np.empty((h, w * n_samples), np.uint8)
        descriptor = page.parent.filehandle.fileno()
        for row in range(h):
            start = page.dataoffsets[0] + ((y + row) * width + x) * n_samples
            content = os.pread(descriptor, w * n_samples, start)
            if len(content) < w * n_samples:
                raise _damaged(self._file, ValueError("it ends in the middle of the image"))
            region[row] = np.frombuffer(content, np.uint8)
        return to_rgb(region.reshape(h, w, n_samples), page.keyframe)

    def _chunk(self, level: int, row: int, column: int) -> Image | None:
        """Decode a tile or strip to RGB (h, w, 3), or take it from the cache; None if it is not in the file."""
        key = level, row, column
        if key in self._chunks:
            self._chunks.move_to_end(key)
            return self._chunks[key]
        chunk = self._chunks[key] = chunk_rgb(self._pages[level], row, column)
        while sum(cached.nbytes for cached in self._chunks.values() if cached is not None) > CACHE_BYTES:
            if len(self._chunks) == 1:
                break
            self._chunks.popitem(last=False)
        return chunk


def tiff_scenes(file: Path) -> list[str]:
    """Names of the scenes in a TIFF. Raises DataError as `TiffSlide`."""
    tiff = _opened(file)
    try:
        return [scene.name for scene in find_scenes(tiff, file)]
    except NucsegError:
        raise
    except Exception as cause:
        raise _damaged(file, cause) from cause
    finally:
        tiff.close()


def _opened(file: Path) -> Any:
    """Open a TIFF and list its series; by its pages alone if its OME-XML is incomplete."""
    import tifffile  # slow to import

    causes = []
    for is_ome in (None, False):  # None: as the file says
        try:
            tiff = tifffile.TiffFile(file, is_ome=is_ome)
            try:
                list(tiff.series)
            except BaseException:
                tiff.close()
                raise
        except Exception as cause:  # for damaged files, it raises errors of many types
            causes.append(cause)
        else:
            return tiff
    raise _damaged(file, causes[0]) from causes[0]


def _check_page(frame: Any, file: Path, convert: str) -> None:
    """Raise DataError unless the pixels of a page can be read by regions."""
    check_image(frame, file, convert)
    height, width = chunk_size(frame)
    n_bytes = height * width * frame.samplesperpixel * frame.dtype.itemsize
    if n_bytes > MAX_CHUNK_BYTES and not _is_uncompressed(frame):
        raise DataError(
            f"{file} is compressed in chunks of {width} x {height} pixels, which must be decoded as a whole and take "
            f"{n_bytes:,} bytes each (at most {MAX_CHUNK_BYTES:,}). Convert it to a tiled TIFF (`vips tiffsave IN "
            "OUT.tif --tile --pyramid --compression jpeg`, or QuPath's export)."
        )


def _is_uncompressed(frame: Any) -> bool:
    """Whether all pixels are stored in one piece, uncompressed, byte by byte, row by row."""
    in_rows = frame.planarconfig == 1 and not frame.is_tiled
    return bool(frame.is_contiguous) and in_rows and frame.bitspersample == 8


def _orientation(scene: Scene) -> str:
    return orientation_note(scene.levels[0].keyframe.tags.valueof(_ORIENTATION, default=1))


def _left_out(scene: Scene) -> str:
    return f"The file also has {scene.left_out}, not predicted." if scene.left_out else ""


def _damaged(file: Path, cause: Exception) -> DataError:
    return DataError(
        f"{file} cannot be read ({cause or type(cause).__name__}). It is damaged, truncated or compressed in an "
        "unsupported way: download or export it again."
    )
