"""Outlines of nuclei in pixels, and the instance map that they make together."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nucseg.data.masks import Labels, MaskFacts, cover_finding
from nucseg.errors import DataError

Ring = npt.NDArray[np.float64]
"""(n, 2), the corners x, y; closed whether or not the first one is repeated."""
Mask = npt.NDArray[np.bool_]

MAX_COORDINATE = 1e7
"""Larger coordinates are no pixels of an image."""
_MAX_CROSSINGS = 50_000_000
"""Crossings of an outline with rows of pixels: outlines with more would not fit in memory."""
_TOLERANCE_PX = 0.5
"""By so much an outline may reach beyond the image without being counted as cut."""
_WITHIN = 0.9
"""Share of a nucleus within another outline from which it counts as inside."""
_REGION = 20
"""An outline drawn by hand is a region if it has more than so many times the median area of the detected nuclei."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Shape:
    """One object of a file: polygons, or the runs of a COCO mask."""

    name: str
    """For error messages."""
    class_name: str = ""
    polygons: Sequence[Sequence[Ring]] = ()
    """Polygons that make up the object together; each has an outer ring and those of its holes."""
    runs: npt.NDArray[np.int64] | None = None
    """Lengths of alternating runs of background and object over the pixels, column by column (COCO's RLE)."""
    is_ignored: bool = False
    """Whether it is an area to ignore rather than a nucleus."""
    is_detected: bool = False
    """Whether a program found it, so that it is no region drawn around tissue."""

    @property
    def is_empty(self) -> bool:
        """Whether it has no area at all, such as a point or a line."""
        return self.runs is None and not self.polygons


@dataclass(frozen=True, eq=False)
class _Drawn:
    """The pixels of a shape within its bounding box, which lies in the image."""

    shape: Shape
    box: tuple[slice, slice]
    mask: Mask
    area: int


def as_ring(points: Any, what: str) -> Ring:
    """Check the corners of a ring. Raises DataError, which mentions `what`, if they are no finite pixel coordinates."""
    try:
        corners = np.asarray(points)
    except ValueError:  # of different lengths
        corners = np.empty(0, object)
    if corners.ndim != 2 or corners.shape[1] < 2 or corners.dtype.kind not in "iuf":
        raise DataError(f"{what} has corners that are not pairs of numbers. Export it again.")
    ring = corners[:, :2].astype(np.float64)
    if not (np.abs(ring) <= MAX_COORDINATE).all():  # also NaN
        wrong = ring[~(np.abs(ring) <= MAX_COORDINATE).all(axis=1)][0].tolist()
        raise DataError(f"{what} has a corner at {wrong}; expected pixel coordinates. Correct or remove it.")
    return ring


def labels_from(shapes: Sequence[Shape], size: tuple[int, int], file: Path) -> Labels:
    """Draw shapes into an image of `size` (H, W).

    Pixels whose centre is inside belong to the nucleus, so that outlines along pixel edges (see
    `nucseg.nuclei.outline`) give back their pixels. Nuclei are numbered from 1 in the order of the file. Of two that
    overlap, the smaller one keeps the pixels. Regions are left out: what is around several others, and, in a file of
    detected nuclei, what is drawn by hand and far larger than these. So is what has no pixels; all are counted. Raises
    DataError if there are shapes but none has a pixel in the image.
    """
    counts: Counter[str] = Counter(shapeless=sum(shape.is_empty for shape in shapes))
    solid = [shape for shape in shapes if not shape.is_empty]
    drawn = [outline for shape in solid if (outline := _drawn(shape, size, file)) is not None]
    counts["outside"] = len(solid) - len(drawn)
    if solid and not drawn:
        raise DataError(
            f"{file}: none of its {len(solid)} outlines has a pixel in the image of {size[1]} x {size[0]} pixels. They "
            "must be in pixels of this image: export them again without an offset or a scale."
        )
    counts["cut"] = sum(_is_cut(outline.shape, size) for outline in drawn)
    ignore = np.zeros(size, np.bool_)
    for outline in drawn:
        if outline.shape.is_ignored:
            ignore[outline.box] |= outline.mask
            counts["ignored"] += 1
    nuclei = [outline for outline in drawn if not outline.shape.is_ignored]
    instances, kept = _painted(_without_regions(nuclei, counts), size, counts)
    classes = Counter(outline.shape.class_name for outline in kept if outline.shape.class_name)
    findings = {kind: str(count) for kind, count in counts.items() if count} | cover_finding(instances)
    return Labels(instances=instances, ignore=ignore, facts=MaskFacts(classes=dict(classes), findings=findings))


def _without_regions(nuclei: Sequence[_Drawn], counts: Counter[str]) -> list[_Drawn]:
    """Leave out what is drawn by hand and far larger than the detected nuclei, if there are any."""
    detected = [outline.area for outline in nuclei if outline.shape.is_detected]
    largest = _REGION * np.median(detected) if detected else np.inf
    left = [outline for outline in nuclei if outline.shape.is_detected or outline.area <= largest]
    counts["regions"] = len(nuclei) - len(left)
    return left


@dataclass
class _Overlaps:
    """Which nuclei were painted over others."""

    inside: Counter[int] = field(default_factory=Counter)
    """Number of a nucleus -> smaller ones inside it."""
    pairs: list[tuple[int, set[int]]] = field(default_factory=list)
    """A nucleus, and those that it was painted over."""

    def add(self, number: int, below: npt.NDArray[np.int32], area: int) -> None:
        """Record the pixels (n,) that were covered by a nucleus of this area."""
        ids, counts = np.unique(below[below > 0], return_counts=True)
        if len(ids):
            self.pairs.append((number, set(ids.tolist())))
            if counts.max() >= _WITHIN * area:
                self.inside[int(ids[counts.argmax()])] += 1


def _painted(
    nuclei: Sequence[_Drawn], size: tuple[int, int], counts: Counter[str]
) -> tuple[npt.NDArray[np.int32], list[_Drawn]]:
    """Paint nuclei from the largest to the smallest, and return those that are left."""
    numbers = np.zeros(size, np.int32)
    overlaps = _Overlaps()
    for number, outline in sorted(enumerate(nuclei, start=1), key=lambda pair: -pair[1].area):
        part = numbers[outline.box]
        overlaps.add(number, part[outline.mask], outline.area)
        part[outline.mask] = number
    regions = {number for number, n_inside in overlaps.inside.items() if n_inside > 1}
    visible = np.bincount(numbers.ravel(), minlength=len(nuclei) + 1)[1:] > 0
    is_kept = visible & ~np.isin(np.arange(1, len(nuclei) + 1), list(regions))
    counts["regions"] += len(regions)
    counts["covered"] = int(np.count_nonzero(~visible)) - sum(not visible[number - 1] for number in regions)
    counts["overlapping"] = sum(number not in regions and bool(below - regions) for number, below in overlaps.pairs)
    renumbered = np.concatenate([[0], np.where(is_kept, np.cumsum(is_kept), 0)]).astype(np.int32)
    return renumbered[numbers], [outline for outline, keep in zip(nuclei, is_kept, strict=True) if keep]


def _is_cut(shape: Shape, size: tuple[int, int]) -> bool:
    low, high = -_TOLERANCE_PX, np.array([size[1], size[0]]) + _TOLERANCE_PX
    return any(bool(((ring < low) | (ring > high)).any()) for rings in shape.polygons for ring in rings)


def _drawn(shape: Shape, size: tuple[int, int], file: Path) -> _Drawn | None:
    """The pixels of a shape; None if it has none in the image."""
    if shape.runs is not None:
        whole = _decoded_runs(shape.runs, size)
        box, mask = (slice(0, size[0]), slice(0, size[1])), whole
    else:
        box = _box(shape.polygons, size)
        mask = np.zeros((box[0].stop - box[0].start, box[1].stop - box[1].start), np.bool_)
        for rings in shape.polygons if mask.size else ():
            mask |= _inside(rings, box, f"{file}: {shape.name}")
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return None
    tight = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    place = tuple(
        slice(int(side.start + part.start), int(side.start + part.stop)) for side, part in zip(box, tight, strict=True)
    )
    mask = mask[tight].copy()
    return _Drawn(shape, (place[0], place[1]), mask, int(np.count_nonzero(mask)))


def _decoded_runs(runs: npt.NDArray[np.int64], size: tuple[int, int]) -> Mask:
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(size, order="F")


def _box(polygons: Sequence[Sequence[Ring]], size: tuple[int, int]) -> tuple[slice, slice]:
    """The rows and columns of the image whose centres lie within the bounding box of the polygons."""
    corners = np.concatenate([ring for rings in polygons for ring in rings])
    low, high = (np.ceil(corner - 0.5).astype(int) for corner in (corners.min(axis=0), corners.max(axis=0)))
    columns, rows = (
        slice(min(max(low[axis], 0), extent), min(max(high[axis], 0), extent))
        for axis, extent in ((0, size[1]), (1, size[0]))
    )
    return rows, columns


def _inside(rings: Sequence[Ring], box: tuple[slice, slice], what: str) -> Mask:
    """The pixels of a box whose centre is inside an odd number of rings, found row by row from the edges."""
    top, left = box[0].start, box[1].start
    height, width = box[0].stop - top, box[1].stop - left
    starts, ends = np.concatenate(rings), np.concatenate([np.roll(ring, -1, axis=0) for ring in rings])
    upper, lower = np.minimum(starts[:, 1], ends[:, 1]), np.maximum(starts[:, 1], ends[:, 1])
    # an edge crosses the rows whose centre line is at or below its upper end and above its lower end
    first, stop = ((np.ceil(ys - 0.5) - top).clip(0, height).astype(np.int64) for ys in (upper, lower))
    n_crossed = stop - first
    if n_crossed.sum() > _MAX_CROSSINGS:
        raise DataError(f"{what} has {len(starts)} corners over too many rows of pixels. Simplify this outline.")
    edge = np.repeat(np.arange(len(starts)), n_crossed)
    row = first[edge] + np.arange(len(edge)) - np.repeat(np.cumsum(n_crossed) - n_crossed, n_crossed)
    (x0, y0), (x1, y1) = starts[edge].T, ends[edge].T
    x = x0 + (row + top + 0.5 - y0) * (x1 - x0) / (y1 - y0)
    column = (np.ceil(x - 0.5) - left).clip(0, width).astype(np.int64)
    crossings = np.bincount(row * (width + 1) + column, minlength=height * (width + 1))
    return np.asarray(np.cumsum(crossings.reshape(height, width + 1), axis=1)[:, :width] % 2 == 1)
