"""Nuclei of an image of any size, found window by window and put together to one instance map.

The image is divided into blocks. Each is looked at in a window that reaches a margin further, wider than any nucleus,
so that what lies at its border is seen whole. A nucleus belongs to the block that its centre of mass lies in, wherever
else its pixels are, so it is taken once and whole. What reaches the edge of its window is larger than the margin and
no single nucleus: it is cut along the borders of the blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

InstanceMap = NDArray[np.int32]
Mask = NDArray[np.bool_]
Item = TypeVar("Item")


@dataclass(frozen=True)
class Span:
    """A block and its window along one axis, in pixels of the image."""

    start: int
    stop: int
    """The block: from start to before stop."""
    from_: int
    to: int
    """The window."""

    @property
    def core(self) -> slice:
        """The block within its window."""
        return slice(self.start - self.from_, self.stop - self.from_)


def spans(extent: int, block: int, margin: int, shift: int = 0) -> list[Span]:
    """Divide an axis into blocks with windows; `shift` moves the borders down, which must change nothing."""
    first = range((block - shift % block) % block, extent, block)
    borders = sorted({0, *first, extent})
    return [Span(start, stop, max(start - margin, 0), min(stop + margin, extent)) for start, stop in pairwise(borders)]


@dataclass(frozen=True, eq=False)
class Piece:
    """One nucleus: its mask, and where that lies in the image."""

    y: int
    x: int
    mask: Mask
    """(h, w), no row or column at its edges is empty."""

    @property
    def box(self) -> tuple[slice, slice]:
        """Rows and columns of the image that the mask covers."""
        return slice(self.y, self.y + self.mask.shape[0]), slice(self.x, self.x + self.mask.shape[1])

    @property
    def centre(self) -> tuple[float, float]:
        """Centre of mass (y, x); the first pixel of the image covers 0 to 1."""
        y, x = np.nonzero(self.mask)
        return self.y + float(y.mean()) + 0.5, self.x + float(x.mean()) + 0.5

    def masked(self, mask: Mask) -> Piece | None:
        """The largest part, connected by edges, of a mask within this one; None where it is empty."""
        parts, n_parts = ndimage.label(mask)
        if not n_parts:
            return None
        largest = parts == np.bincount(parts.ravel())[1:].argmax() + 1 if n_parts > 1 else mask
        rows, columns = (np.flatnonzero(largest.any(axis)) for axis in (1, 0))
        box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        return Piece(self.y + int(rows[0]), self.x + int(columns[0]), largest[box])


def owned(instances: InstanceMap, rows: Span, columns: Span, size: tuple[int, int]) -> Iterator[Piece]:
    """The nuclei of a window's instance map that belong to its block, in the order of their numbers.

    Args:
        instances: (H, W) of the window.
        rows: the block and its window.
        columns: likewise.
        size: (H, W) of the whole image, whose own edges cut nothing.
    """
    cut = _at_edges(instances, rows, columns, size)
    for number, box in enumerate(ndimage.find_objects(instances), start=1):
        if box is None:
            continue
        mask = instances[box] == number
        piece = Piece(rows.from_ + box[0].start, columns.from_ + box[1].start, mask)
        if number in cut:
            yield from _within(piece, rows, columns)
        elif _centre_in(piece, rows, columns):
            yield piece


def _at_edges(instances: InstanceMap, rows: Span, columns: Span, size: tuple[int, int]) -> set[int]:
    edges: list[InstanceMap | None] = [
        instances[0] if rows.from_ > 0 else None,
        instances[-1] if rows.to < size[0] else None,
        instances[:, 0] if columns.from_ > 0 else None,
        instances[:, -1] if columns.to < size[1] else None,
    ]
    return {int(number) for edge in edges if edge is not None for number in np.unique(edge)}


def _centre_in(piece: Piece, rows: Span, columns: Span) -> bool:
    """Whether the centre of mass lies in the block; in whole numbers, so that two blocks never both say yes."""
    y, x = np.nonzero(piece.mask)
    n = len(y)
    doubled_y, doubled_x = int((2 * (y + piece.y) + 1).sum()), int((2 * (x + piece.x) + 1).sum())
    return (
        2 * rows.start * n <= doubled_y < 2 * rows.stop * n
        and 2 * columns.start * n <= doubled_x < 2 * columns.stop * n
    )


def _within(piece: Piece, rows: Span, columns: Span) -> Iterator[Piece]:
    """The parts of a piece that lie in the block."""
    top, left = max(rows.start - piece.y, 0), max(columns.start - piece.x, 0)
    inside = piece.mask[top : max(rows.stop - piece.y, 0), left : max(columns.stop - piece.x, 0)]
    if not inside.size:
        return
    parts, _ = ndimage.label(inside)
    for number, box in enumerate(ndimage.find_objects(parts), start=1):
        yield Piece(piece.y + top + box[0].start, piece.x + left + box[1].start, parts[box] == number)


class InstanceStitcher:
    """The instance map of an image, from above to below; only the rows that may still change are in memory.

    Blocks come row by row. No pixel is given to two nuclei: the one that came first keeps it. Nuclei are numbered
    from 1 in the order of the rows, then of the columns, of their centres of mass, whatever the blocks were.
    """

    LEAST_SHARE = 0.5
    """A nucleus of which less is left once others have kept their pixels was found before."""

    def __init__(self, width: int, height: int) -> None:
        """An empty map of an image of this size."""
        self._first_row, self._height = 0, height
        self._rows: InstanceMap = np.zeros((0, width), np.int32)
        self._n_numbered = self._n_placed = 0

    def reach(self, bottom: int) -> None:
        """Hold rows down to `bottom`, exclusive."""
        n_more = min(bottom, self._height) - self._first_row - len(self._rows)
        if n_more > 0:
            more = np.zeros((n_more, self._rows.shape[1]), np.int32)
            self._rows = np.concatenate([self._rows, more])

    def place(self, piece: Piece, min_area_px: int) -> Piece | None:
        """Give a nucleus its pixels; what is given of it, or None where too little was left."""
        if piece.mask.sum() < min_area_px:
            return None
        rows, columns = piece.box
        there = self._rows[rows.start - self._first_row : rows.stop - self._first_row, columns]
        free = piece.mask & (there == 0)
        if free.sum() < piece.mask.sum():
            left = piece.masked(free)
            if left is None or left.mask.sum() < max(min_area_px, self.LEAST_SHARE * piece.mask.sum()):
                return None
            return self.place(left, min_area_px)
        self._n_placed += 1
        there[piece.mask] = self._n_placed
        return piece

    def number(self, placed: Sequence[Item], centres: NDArray[np.float64]) -> list[tuple[int, Item]]:
        """Number what was placed since the last time, in reading order of its centres (n, 2), y before x."""
        order = np.lexsort((centres[:, 1], centres[:, 0])) if len(placed) else np.zeros(0, np.int64)
        numbers = np.zeros(self._n_placed + 1, np.int32)
        numbers[: self._n_numbered + 1] = np.arange(self._n_numbered + 1)
        numbers[self._n_numbered + 1 + order] = self._n_numbered + 1 + np.arange(len(order))
        self._rows = numbers[self._rows] if len(placed) else self._rows
        first = self._n_numbered + 1
        self._n_numbered = self._n_placed
        return [(first + position, placed[index]) for position, index in enumerate(order)]

    def finished(self, bottom: int) -> InstanceMap:
        """Take away the rows above `bottom`, exclusive: (h, W)."""
        n_rows = max(min(bottom, self._height) - self._first_row, 0)
        done, self._rows = self._rows[:n_rows], self._rows[n_rows:].copy()
        self._first_row += n_rows
        return done


@dataclass(frozen=True, eq=False)
class Window(Generic[Item]):
    """What was found in a window."""

    instances: InstanceMap
    """(H, W) of the window."""
    describe: Callable[[Piece], Item]
    """What is to be known of a nucleus, while its window is at hand."""


@dataclass(frozen=True, eq=False)
class RowBand(Generic[Item]):
    """Rows of the instance map that are finished, and the nuclei that were numbered meanwhile."""

    instances: InstanceMap
    """(h, W), the rows after those of the band before; h may be 0."""
    nuclei: Sequence[tuple[int, Item]]
    """Number and description, in the order of the numbers. Parts of their pixels may lie in the next band."""


def assemble(
    size: tuple[int, int],
    look: Callable[[Span, Span], Window[Item] | None],
    *,
    block: tuple[int, int],
    margin: int,
    min_area_px: int = 0,
    shift: tuple[int, int] = (0, 0),
) -> Iterator[RowBand[Item]]:
    """Put the nuclei of an image together from above to below.

    Args:
        size: (H, W) of the image.
        look: finds the nuclei in a window, given its rows and columns; None where there are none.
        block: height and width of a block in pixels.
        margin: how far a window reaches beyond its block; wider than any nucleus.
        min_area_px: nuclei that are smaller once others have kept their pixels are dropped.
        shift: how far the borders of the blocks are moved down and to the right.
    """
    mosaic = InstanceStitcher(size[1], size[0])
    all_rows = spans(size[0], block[0], margin, shift[0])
    for rows, following in zip(all_rows, [*all_rows[1:], None], strict=True):
        mosaic.reach(rows.to)
        placed, centres = [], []
        for columns in spans(size[1], block[1], margin, shift[1]):
            window = look(rows, columns)
            pieces = () if window is None else owned(window.instances, rows, columns, size)
            for piece in pieces:
                given = mosaic.place(piece, min_area_px)
                if given is not None and window is not None:
                    placed.append(window.describe(given))
                    centres.append(given.centre)
        numbered = mosaic.number(placed, np.array(centres, np.float64).reshape(-1, 2))
        yield RowBand(mosaic.finished(following.from_ if following else size[0]), numbered)
