"""The scenes of a TIFF: its full-size images, without labels, overviews and the smaller copies of a pyramid."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nucseg.data.files import some
from nucseg.data.slides.ome import OmeImage, ome_image_of, ome_images
from nucseg.data.slides.resolution import Mpp, Resolution, page_resolution
from nucseg.data.slides.slide import Size
from nucseg.errors import DataError

_NOT_TISSUE = re.compile(r"(?<![a-z])(label|macro|thumbnail|overview|barcode|preview)(?![a-z])", re.IGNORECASE)
"""Names of images that scanners add."""

_ONLY_NOT_TISSUE = re.compile(r"(label|macro|thumbnail)([ _-]?image)?[ _-]?\d*", re.IGNORECASE)
"""Names that nearly every slide of a scanner has for them."""

_OVERVIEW_MPP, _OVERVIEW_SHARE = 1.5, 1 / 4
"""An image is taken for an overview of another if its pixels are so many times as large or, where that is not known, if
it has the same shape and at most this share of the pixels."""
_MIN_SHARE = 1 / 64
"""An image of unknown resolution with fewer pixels than this share of the largest is taken for a label."""
_LEVEL_TOLERANCE_PX = 2.0
_SHAPE_TOLERANCE = 0.02


@dataclass(frozen=True)
class Scene:
    """An image of a TIFF."""

    name: str
    """Usable as a file name, and different from those of the other scenes of the file."""
    levels: Sequence[Any]
    """The page of the image, then those of its smaller copies."""
    resolution: Resolution
    left_out: str
    """Names and sizes of the other images in the file and why they are no scenes; not those with a scanner's names."""


@dataclass(frozen=True)
class _Series:
    series: Any
    size: Size
    resolution: Resolution

    @property
    def n_pixels(self) -> int:
        return math.prod(self.size)

    def described(self, what: str) -> str:
        return f"{self.series.name or 'an image'} ({self.size[1]} x {self.size[0]} pixels, {what})"


def find_scenes(tiff: Any, file: Path) -> list[Scene]:
    """List the scenes of a tifffile.TiffFile whose pixels are in it; if it has none, those in the files it refers to.

    Raises:
        DataError: it has no image, the images are in a file that is missing, or an image has several planes.
    """
    images = ome_images(tiff)
    present = [_described(series, tiff, images) for series in tiff.series if series.pages and series.pages[0]]
    present = [found for found in present if found.series.pages[0].parent is tiff] or present
    _check_present(tiff, present, images, file)
    named_otherwise = [found for found in present if _is_named_otherwise(found)] or present
    largest = max(named_otherwise, key=lambda found: found.n_pixels)
    reasons = [(found, _why_no_scene(found, largest)) for found in present]
    scenes = [found for found, why in reasons if not why]
    unusual = [pair for pair in reasons if pair[1] and not _ONLY_NOT_TISSUE.fullmatch(pair[0].series.name or "")]
    left_out = some([found.described(why) for found, why in unusual])
    return [
        Scene(name, _levels(found, file), found.resolution, left_out)
        for name, found in zip(_names([found.series.name for found in scenes]), scenes, strict=True)
    ]


def choose_scene(names: Sequence[str], wanted: str | int | None, file: Path) -> int:
    """Index of the scene with a name or a number from 1; None chooses an only scene. Raises DataError if none fits."""
    if wanted is None and len(names) == 1:
        return 0
    numbered = {str(number): index for index, number in enumerate(range(1, len(names) + 1))}
    known = {**numbered, **{name: index for index, name in enumerate(names)}}
    if str(wanted) in known and wanted is not None:
        return known[str(wanted)]
    problem = "choose one of them" if wanted is None else f"there is no {str(wanted)!r}"
    raise DataError(
        f"{file} has {len(names)} scene{'s' * (len(names) > 1)} ({some(names, 8)}): {problem}. Give a name or a number "
        "from 1 (--scene, or scene=... in Python)."
    )


def agrees(size: Size, full: Size) -> bool:
    """Whether a smaller image can show the whole of a full one: it has the same shape, up to rounding."""
    (h, w), (full_h, full_w) = size, full
    rows_off, columns_off = abs(h - full_h * w / full_w), abs(w - full_w * h / full_h)
    return h <= full_h and w <= full_w and min(rows_off, columns_off) <= _LEVEL_TOLERANCE_PX


def _described(series: Any, tiff: Any, images: list[OmeImage]) -> _Series:
    page = series.pages[0]
    image = ome_image_of(page, tiff, images)
    frame = page.keyframe
    mpp: Mpp | None = image.mpp if image else None
    return _Series(series, (frame.imagelength, frame.imagewidth), page_resolution(frame, mpp))


def _check_present(tiff: Any, present: list[_Series], images: list[OmeImage], file: Path) -> None:
    if not present:
        raise DataError(f"{file} has no image. It is damaged, or was not written completely: export it again.")
    if images and all(image.file for image in images):
        sizes = {image.size for image in images}
        absent = sorted({image.file for image in images if not (file.parent / image.file).exists()})
        elsewhere = any(found.series.pages[0].parent is not tiff for found in present)
        # a file that was renamed has the pixels although its description has another name
        if absent and not elsewhere and not any(found.size in sizes for found in present):
            raise DataError(
                f"{file} describes images whose pixels are in other files, which are missing: {some(absent)}. Put them "
                "in the same folder."
            )


def _is_named_otherwise(found: _Series) -> bool:
    return not _NOT_TISSUE.search(found.series.name or "")


def _why_no_scene(found: _Series, largest: _Series) -> str:
    """Why an image is an overview or a label of the largest rather than a scene of its own; empty if it is one."""
    frame, model = found.series.keyframe, largest.series.keyframe
    if found is largest:
        return ""
    if _is_named_otherwise(largest) and not _is_named_otherwise(found):
        return "an overview or a label by its name"
    if (frame.samplesperpixel, frame.dtype) != (model.samplesperpixel, model.dtype):
        return "its pixels are of another type"
    mpp, of_largest = found.resolution.mpp, largest.resolution.mpp
    if mpp and of_largest:
        return "an overview by its resolution" if max(mpp) > _OVERVIEW_MPP * max(of_largest) else ""
    (h, w), (full_h, full_w) = found.size, largest.size
    same_shape = abs(h * full_w / (w * full_h) - 1) <= _SHAPE_TOLERANCE
    least = _OVERVIEW_SHARE * (1 + _SHAPE_TOLERANCE) if same_shape else _MIN_SHARE
    return "an overview by its size" if found.n_pixels <= least * largest.n_pixels else ""


def _levels(found: _Series, file: Path) -> list[Any]:
    series, (height, width) = found.series, found.size
    n_samples = series.keyframe.samplesperpixel
    if len(series.pages) != 1 or math.prod(series.shape) != height * width * n_samples:
        raise DataError(
            f"{file} has {len(series.pages)} planes of {width} x {height} pixels (axes {series.axes}); expected one "
            "8-bit RGB or gray image. Export the right plane as RGB."
        )
    pages = [level.pages[0] for level in series.levels if level.pages and level.pages[0]]
    sizes = [(page.keyframe.imagelength, page.keyframe.imagewidth) for page in pages]
    return [page for page, size in zip(pages, sizes, strict=True) if agrees(size, found.size)]


def _names(names: Sequence[str | None]) -> list[str]:
    safe = [re.sub(r"[^\w.-]+", "_", name or "").strip("._-")[:60] for name in names]
    distinct = len({name.casefold() for name in safe}) == len(safe)
    return safe if distinct and all(safe) else [f"scene{number}" for number in range(1, len(safe) + 1)]
