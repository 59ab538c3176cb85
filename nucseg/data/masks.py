"""Interpret the numbers of a mask as an instance map, or as a binary mask whose connected components are the nuclei."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nucseg.errors import DataError

MAX_KEPT_ID = 1_000_000
"""Maps with larger ids are renumbered, because arrays that are indexed by id must stay small."""

_MUCH, _MOST = 1 / 3, 1 / 2
"""Shares of an image. Real nuclei cover at most 2 %, and pieces of touching nuclei 20 % (NuInsSeg at 40x)."""
_LARGE = 8
"""A piece is large if it has at least one part in so many of the largest one's area; smaller ones are stray flecks."""
_FLECK_PX = 16
"""Where one value may be one nucleus or many, pieces of this area are not flecks, however large the largest one is."""
_NEARLY_ALL = 4 / 5
"""Share of an image that all nuclei together never cover; they cover at most 65 % (NuInsSeg at 40x)."""
_CLEAR = 2 / 3
"""Share of the more frequent of two values from which it counts as the background if neither is 0."""
_VOID = {2**8 - 1, 2**16 - 1, 2**32 - 1}
"""Values that often mark background or an area to ignore: those with all bits set."""
_OUTSIDE = "Write 0 for the background, and put areas to ignore into a mask of their own, ignore/<name>.png."


@dataclass(frozen=True, kw_only=True)
class MaskFacts:
    """What was found in a mask, for the notes on a data set (see `mask_notes`)."""

    n_pieces: int | None = None
    """Connected components of a binary mask; None for another mask."""
    classes: Mapping[str, int] = field(default_factory=dict)
    """Class -> number of nuclei, if the file names classes."""
    findings: Mapping[str, str] = field(default_factory=dict)
    """Kind of finding (see `mask_notes.KINDS`) -> what was found, in a few words."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Labels:
    """Instance map and ignored area of an image, both (H, W), and what was found."""

    instances: npt.NDArray[np.int32]
    ignore: npt.NDArray[np.bool_]
    facts: MaskFacts = field(default_factory=MaskFacts)


@dataclass(frozen=True, eq=False)
class _Pieces:
    """The connected components of an instance map, including diagonals."""

    numbers: npt.NDArray[np.int32]
    """The pieces, (H, W), numbered from 1."""
    ids: npt.NDArray[np.int32]
    """Id of each piece."""
    main: npt.NDArray[np.intp]
    """Index of the largest piece that has the id of each piece."""
    is_large: npt.NDArray[np.bool_]
    """Whether a piece is large compared with the largest one that has its id."""
    n_ids: int

    def n_large(self, id_: int | None = None) -> int:
        """Number of large pieces, of one id if it is given."""
        return int(np.count_nonzero(self.is_large if id_ is None else self.is_large & (self.ids == id_)))

    def n_far(self) -> int:
        """Number of large pieces that are farther from the largest one of their id than that one is long."""
        from scipy import ndimage  # slow to import, and not needed for instance maps by guarantee

        boxes = [[(side.start, side.stop) for side in box] for box in ndimage.find_objects(self.numbers)]
        starts, stops = np.array(boxes, np.intp).reshape(-1, 2, 2).transpose(2, 0, 1)
        gaps = np.maximum(starts - stops[self.main], starts[self.main] - stops).max(axis=1)
        return int(np.count_nonzero(self.is_large & (gaps > (stops - starts)[self.main].max(axis=1))))


def instances_from(
    values: npt.NDArray[Any], file: Path | str, *, instance_map: bool = False
) -> tuple[npt.NDArray[np.int32], MaskFacts]:
    """Turn the values of a mask (H, W) into an instance map (H, W), 0 = background, and say what was found.

    A mask of two values is binary if one of them is in several pieces, or if it is a usual binary mask (at most 8 bits,
    0 with 1 or 255): its connected components, including diagonals, are numbered. The background is 0, or the more
    frequent of two other values. Everything else is an instance map and keeps its ids; if one is above MAX_KEPT_ID, all
    are renumbered in their order.

    Args:
        values: integers or bool.
        file: for error messages; a string describes a part of a file.
        instance_map: the source guarantees an instance map, so that one value in two pieces is one nucleus.

    Raises:
        DataError: negative ids, ids in so many pieces that this is no instance map, or a value on most of the image
            that is background or void rather than a nucleus.
    """
    if (lowest := int(values.min())) < 0:
        raise DataError(
            f"{file} has ids from {lowest} to {int(values.max())}; expected 0 for the background and positive ids. "
            f"Renumber the nuclei. {_OUTSIDE}"
        )
    instances = _renumbered(values)
    counts = np.bincount(instances.ravel())
    found = np.flatnonzero(counts)
    if len(found) == 2 and not instance_map:
        binary = _components(instances, counts, found.tolist(), values.dtype, file)
        if binary is not None:
            foreground = _check_binary_cover(binary, int(values.max()), file)
            findings = cover_finding(binary) or ({"foreground": f"{foreground:.0%}"} if foreground > _MOST else {})
            return binary, MaskFacts(n_pieces=int(binary.max()), findings=findings)
    if not instance_map:
        _check_cover(counts, values, file)
    pieces = _pieces(instances, int(np.count_nonzero(found)))
    _check_pieces(pieces, file)
    findings = cover_finding(instances)
    if not instance_map:
        findings |= _void(values, instances, pieces, file) | _split(pieces, file)
    return instances, MaskFacts(findings=findings)


def cover_finding(instances: npt.NDArray[np.int32]) -> dict[str, str]:
    """The finding that one nucleus covers most of an instance map; empty if none does."""
    share = np.bincount(instances.ravel())[1:].max(initial=0) / instances.size
    return {"cover": f"{share:.0%}"} if share > _MUCH else {}


def _renumbered(values: npt.NDArray[Any]) -> npt.NDArray[np.int32]:
    if values.max() <= MAX_KEPT_ID:
        return np.array(values, np.int32)
    ids, places = np.unique(values, return_inverse=True)
    return np.asarray(places.reshape(values.shape) + (ids[0] != 0), np.int32)


def _components(
    instances: npt.NDArray[np.int32],
    counts: npt.NDArray[np.intp],
    found: list[int],
    dtype: np.dtype[Any],
    file: Path | str,
) -> npt.NDArray[np.int32] | None:
    """Number the components of a mask of two values; None if it is an instance map of one nucleus."""
    from skimage.measure import label  # slow to import, needed only for binary masks

    low, high = found
    background = low if low == 0 or counts[low] > counts[high] else high
    if low and counts[background] < _CLEAR * instances.size:
        raise DataError(
            f"{file} has only the values {low} and {high}, each on much of the image, so that it is not clear which "
            f"one is the background. {_OUTSIDE}"
        )
    components = np.asarray(label(instances != background, connectivity=2), dtype=np.int32)
    usual = low == 0 and dtype.itemsize == 1 and high in (1, 255)
    areas = np.bincount(components.ravel())[1:]
    is_large = areas >= min(areas.max() / _LARGE, _FLECK_PX)
    return components if usual or low or np.count_nonzero(is_large) > 1 else None


def _check_binary_cover(components: npt.NDArray[np.int32], value: int, file: Path | str) -> float:
    """The share of the image that is nucleus; DataError where the mask is probably inverted."""
    areas = np.bincount(components.ravel(), minlength=2)[1:]
    largest, foreground = areas.max() / components.size, float(areas.sum() / components.size)
    if largest > _MOST or foreground > _NEARLY_ALL:
        what = f"one piece covers {largest:.0%}" if largest > _MOST else f"the pieces cover {foreground:.0%}"
        raise DataError(
            f"{file} is a binary mask of which {what} of the image. It seems to be inverted: nuclei must have "
            f"the value {value}, and the background 0. Invert it, or write an instance map."
        )
    return foreground


def _check_cover(counts: npt.NDArray[np.intp], values: npt.NDArray[Any], file: Path | str) -> None:
    share = counts[1:].max(initial=0) / values.size
    if share <= _MOST:
        return
    value = values[0, 0] if share == 1 else np.sort(values, axis=None)[values.size // 2]  # a majority is the median
    likely = "this value seems to be background or void rather than a nucleus"
    if share == 1:
        likely = "the mask may be in an alpha channel or a palette that was lost when the file was saved"
    elif np.count_nonzero(counts) == 2:
        likely = "the mask seems to be inverted, or this value to stand for background or void"
    elif counts[0] == 0:
        likely = "no pixel is 0, so that this value seems to be the background or void"
    raise DataError(f"{file} has the value {value} on {share:.0%} of its pixels: {likely}. {_OUTSIDE}")


def _pieces(instances: npt.NDArray[np.int32], n_ids: int) -> _Pieces:
    from skimage.measure import label

    numbers, n_pieces = label(instances, connectivity=2, background=0, return_num=True)
    areas = np.bincount(numbers.ravel(), minlength=n_pieces + 1)[1:]
    ids = np.zeros(n_pieces + 1, np.int32)
    ids[numbers.ravel()] = instances.ravel()
    ids = ids[1:]
    largest = np.zeros(int(ids.max(initial=0)) + 1, np.intp)  # id -> index of its largest piece
    by_area = np.argsort(areas, kind="stable")
    largest[ids[by_area]] = by_area  # the last one counts
    main = largest[ids]
    return _Pieces(numbers, ids, main, _LARGE * areas >= areas[main], n_ids)


def _check_pieces(pieces: _Pieces, file: Path | str) -> None:
    # Class maps and blurred binary masks have few values in very many pieces. In NuInsSeg, the ids of an image have at
    # most 1.25 pieces on average, so the bound allows for carelessly drawn maps.
    n_pieces = len(pieces.ids)
    if n_pieces > 3 * pieces.n_ids + 10:
        raise _no_instance_map(file, pieces.n_ids, n_pieces)


def _void(
    values: npt.NDArray[Any], instances: npt.NDArray[np.int32], pieces: _Pieces, file: Path | str
) -> dict[str, str]:
    """Report a value such as 255 next to few ids; in several pieces it cannot be a nucleus."""
    highest = int(values.max())
    if highest not in _VOID or not 2 <= pieces.n_ids < highest // 2:
        return {}
    n_pieces = pieces.n_large(int(instances.max()))
    if n_pieces > 1 and pieces.n_large() - n_pieces < 2 * (pieces.n_ids - 1):
        raise DataError(
            f"{file} has the value {highest} in {n_pieces} pieces next to {pieces.n_ids - 1} other values: it seems to "
            f"be void, an area to ignore, rather than a nucleus. {_OUTSIDE}"
        )
    return {"void": f"{highest} next to {pieces.n_ids - 1} others"}


def _split(pieces: _Pieces, file: Path | str) -> dict[str, str]:
    # In NuInsSeg and CryoNuSeg, the ids of an image have at most 1.06 large pieces on average. Folds and other nuclei
    # cut a nucleus into pieces that are near each other, while the nuclei of a class can be anywhere.
    n_ids, n_large = pieces.n_ids, pieces.n_large()
    n_far = pieces.n_far()
    if n_ids > 1 and (n_large >= 2 * n_ids or (n_far > 1 and 2 * n_far >= n_ids)):
        raise _no_instance_map(file, n_ids, n_large)
    return {"split": f"{n_ids} ids in {n_large} pieces"} if 4 * n_large >= 5 * max(n_ids, 1) else {}


def _no_instance_map(file: Path | str, n_ids: int, n_pieces: int) -> DataError:
    return DataError(
        f"{file} is not an instance map: its {n_ids} different values form {n_pieces} separate pieces, but a nucleus "
        "is one piece. It may be a class map or a blurred mask. Give every nucleus its own number, or save a binary "
        "mask with only 0 and 255."
    )
