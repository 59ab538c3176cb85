"""Stitch the nuclei of an image of any size together, from windows that each see only a part of it.

The image is divided into blocks. Each block is segmented in a window that extends beyond it by a margin wider than any
nucleus, so that a nucleus at the border of a block is seen whole. A nucleus belongs to the block that contains its
centre of mass, so every nucleus is taken exactly once, and whole. An object that reaches the edge of its window is
wider than the margin and no single nucleus: it is cut along the borders of the blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from nucseg.metrics.instances import InstanceMap
from nucseg.metrics.overlap import Mask

Item = TypeVar("Item")


@dataclass(frozen=True)
class BlockWindow:
    """A block and its window along one axis, in pixels of the image; stops are exclusive."""

    start: int
    stop: int
    """The block."""
    window_start: int
    window_stop: int
    """The block with its margins."""

    @property
    def window_px(self) -> int:
        """Length of the window."""
        return self.window_stop - self.window_start


def block_windows(extent: int, block: int, margin: int, shift: int = 0) -> list[BlockWindow]:
    """Divide an axis of `extent` pixels into blocks; `shift` moves their borders, which must not change any result."""
    first = range((block - shift % block) % block, extent, block)
    borders = sorted({0, *first, extent})
    return [
        BlockWindow(start, stop, max(start - margin, 0), min(stop + margin, extent))
        for start, stop in pairwise(borders)
    ]


@dataclass(frozen=True, eq=False)
class NucleusMask:
    """The mask of one nucleus and its position in the image."""

    y: int
    x: int
    """First row and column of the image that the mask covers."""
    mask: Mask
    """(h, w), cropped: its outer rows and columns are not empty."""

    @property
    def box(self) -> tuple[slice, slice]:
        """Rows and columns of the image that the mask covers."""
        return slice(self.y, self.y + self.mask.shape[0]), slice(self.x, self.x + self.mask.shape[1])

    @property
    def centre(self) -> tuple[float, float]:
        """Centre of mass (y, x); the first pixel of the image covers 0 to 1."""
        y, x = np.nonzero(self.mask)
        return self.y + float(y.mean()) + 0.5, self.x + float(x.mean()) + 0.5

    def restricted(self, mask: Mask) -> NucleusMask | None:
        """Keep the largest component (4-connected) of `mask`, a part of this mask; None if that is empty."""
        components, n_components = ndimage.label(mask)
        if not n_components:
            return None
        largest = components == np.bincount(components.ravel())[1:].argmax() + 1 if n_components > 1 else mask
        rows, columns = (np.flatnonzero(largest.any(axis)) for axis in (1, 0))
        box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        return NucleusMask(self.y + int(rows[0]), self.x + int(columns[0]), largest[box])


def nuclei_of_block(
    instances: InstanceMap, rows: BlockWindow, columns: BlockWindow, size: tuple[int, int]
) -> Iterator[NucleusMask]:
    """Yield the nuclei that belong to a block, in the order of their labels.

    Args:
        instances: (H, W) instance map of the window.
        rows: the block and its window, vertically.
        columns: likewise, horizontally.
        size: (H, W) of the whole image; a nucleus that reaches the edge of the image itself is not cut.
    """
    cut = _labels_at_edges(instances, rows, columns, size)
    for label, box in enumerate(ndimage.find_objects(instances), start=1):
        if box is None:
            continue
        mask = instances[box] == label
        nucleus = NucleusMask(rows.window_start + box[0].start, columns.window_start + box[1].start, mask)
        if label in cut:
            yield from _parts_in_block(nucleus, rows, columns)
        elif _has_centre_in(nucleus, rows, columns):
            yield nucleus


def _labels_at_edges(
    instances: InstanceMap, rows: BlockWindow, columns: BlockWindow, size: tuple[int, int]
) -> set[int]:
    edges: list[InstanceMap | None] = [
        instances[0] if rows.window_start > 0 else None,
        instances[-1] if rows.window_stop < size[0] else None,
        instances[:, 0] if columns.window_start > 0 else None,
        instances[:, -1] if columns.window_stop < size[1] else None,
    ]
    return {int(label) for edge in edges if edge is not None for label in np.unique(edge)}


def _has_centre_in(nucleus: NucleusMask, rows: BlockWindow, columns: BlockWindow) -> bool:
    """Whether the block contains the centre of mass; in integers, so that no two blocks claim the same nucleus."""
    y, x = np.nonzero(nucleus.mask)
    n = len(y)
    doubled_y, doubled_x = int((2 * (y + nucleus.y) + 1).sum()), int((2 * (x + nucleus.x) + 1).sum())
    return (
        2 * rows.start * n <= doubled_y < 2 * rows.stop * n
        and 2 * columns.start * n <= doubled_x < 2 * columns.stop * n
    )


def _parts_in_block(nucleus: NucleusMask, rows: BlockWindow, columns: BlockWindow) -> Iterator[NucleusMask]:
    top, left = max(rows.start - nucleus.y, 0), max(columns.start - nucleus.x, 0)
    inside = nucleus.mask[top : max(rows.stop - nucleus.y, 0), left : max(columns.stop - nucleus.x, 0)]
    if not inside.size:
        return
    parts, _ = ndimage.label(inside)
    for label, box in enumerate(ndimage.find_objects(parts), start=1):
        yield NucleusMask(nucleus.y + top + box[0].start, nucleus.x + left + box[1].start, parts[box] == label)


class InstanceStitcher:
    """Builds the instance map of an image from top to bottom; only rows that may still change are in memory.

    Blocks are added row by row. A pixel belongs to one nucleus only: the first that was added keeps it. Nuclei are
    numbered from 1 by the row, then the column, of their centres of mass, independently of the blocks.
    """

    MIN_REMAINING_SHARE = 0.5
    """A nucleus that keeps less than this share of its pixels is a duplicate of others and dropped."""

    def __init__(self, width: int, height: int) -> None:
        """Start with an empty map for an image of this size."""
        self._first_row, self._height = 0, height
        self._rows: InstanceMap = np.zeros((0, width), np.int32)
        self._n_numbered = self._n_added = 0

    def extend_to(self, stop: int) -> None:
        """Make room for the rows up to `stop`, exclusive."""
        n_more = min(stop, self._height) - self._first_row - len(self._rows)
        if n_more > 0:
            more = np.zeros((n_more, self._rows.shape[1]), np.int32)
            self._rows = np.concatenate([self._rows, more])

    def add(self, nucleus: NucleusMask, min_area_px: int) -> NucleusMask | None:
        """Give a nucleus its free pixels; return what it got, or None if too little was free."""
        area = nucleus.mask.sum()
        if area < min_area_px:
            return None
        rows, columns = nucleus.box
        target = self._rows[rows.start - self._first_row : rows.stop - self._first_row, columns]
        free = nucleus.mask & (target == 0)
        if free.sum() < area:
            remaining = nucleus.restricted(free)
            if remaining is None or remaining.mask.sum() < max(min_area_px, self.MIN_REMAINING_SHARE * area):
                return None
            return self.add(remaining, min_area_px)
        self._n_added += 1
        target[nucleus.mask] = self._n_added
        return nucleus

    def number(self, added: Sequence[Item], centres: NDArray[np.float64]) -> list[tuple[int, Item]]:
        """Number the nuclei added since the last call, in reading order of their centres (n, 2), y before x."""
        order = np.lexsort((centres[:, 1], centres[:, 0])) if len(added) else np.zeros(0, np.int64)
        first = self._n_numbered + 1
        numbers = np.arange(self._n_added + 1, dtype=np.int32)
        numbers[first + order] = first + np.arange(len(order))
        self._rows = numbers[self._rows] if len(added) else self._rows
        self._n_numbered = self._n_added
        return [(first + position, added[index]) for position, index in enumerate(order)]

    def pop_rows(self, stop: int) -> InstanceMap:
        """Remove and return the finished rows above `stop`, exclusive: (h, W)."""
        n_rows = max(min(stop, self._height) - self._first_row, 0)
        finished, self._rows = self._rows[:n_rows], self._rows[n_rows:].copy()
        self._first_row += n_rows
        return finished


@dataclass(frozen=True, eq=False)
class WindowNuclei(Generic[Item]):
    """The nuclei found in one window."""

    instances: InstanceMap
    """(H, W) of the window."""
    describe: Callable[[NucleusMask], Item]
    """Measures a nucleus while the pixels of its window are in memory."""


@dataclass(frozen=True, eq=False)
class RowBand(Generic[Item]):
    """Finished rows of the instance map, and the nuclei numbered since the last band."""

    instances: InstanceMap
    """(h, W), the rows below those of the previous band; h may be 0."""
    nuclei: Sequence[tuple[int, Item]]
    """Number and description, in ascending order. Some of their pixels may lie in the next band."""


def stitch(
    size: tuple[int, int],
    segment: Callable[[BlockWindow, BlockWindow], WindowNuclei[Item] | None],
    *,
    block: tuple[int, int],
    margin: int,
    min_area_px: int = 0,
    shift: tuple[int, int] = (0, 0),
) -> Iterator[RowBand[Item]]:
    """Segment an image window by window and yield its instance map from top to bottom.

    Args:
        size: (H, W) of the image.
        segment: finds the nuclei of a window, given its rows and columns; None if there are none.
        block: height and width of a block in pixels.
        margin: how far a window extends beyond its block, in pixels; wider than any nucleus.
        min_area_px: nuclei smaller than this, once others have kept their pixels, are dropped.
        shift: how far the borders of the blocks are moved down and to the right.
    """
    stitcher = InstanceStitcher(size[1], size[0])
    all_rows = block_windows(size[0], block[0], margin, shift[0])
    for rows, following in zip(all_rows, [*all_rows[1:], None], strict=True):
        stitcher.extend_to(rows.window_stop)
        described, centres = [], []
        for columns in block_windows(size[1], block[1], margin, shift[1]):
            window = segment(rows, columns)
            if window is None:
                continue
            for nucleus in nuclei_of_block(window.instances, rows, columns, size):
                if (added := stitcher.add(nucleus, min_area_px)) is not None:
                    described.append(window.describe(added))
                    centres.append(added.centre)
        numbered = stitcher.number(described, np.array(centres, np.float64).reshape(-1, 2))
        yield RowBand(stitcher.pop_rows(following.window_start if following else size[0]), numbered)
