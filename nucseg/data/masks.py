"""Interpret a mask as an instance map, or as a binary mask whose connected components are the nuclei."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nucseg.errors import DataError

_MAX_ID = np.iinfo(np.int32).max


def instances_from(values: npt.NDArray[Any], file: Path | str) -> npt.NDArray[np.int32]:
    """Turn the values of a mask (H, W) into an instance map (H, W), 0 = background.

    A mask of at most 8 bits with only the values 0 and 1, or 0 and 255, is binary: its connected components (including
    diagonals) are numbered. Everything else is an instance map and keeps its ids. Raises DataError, which mentions
    `file` (a string describes a part of one), for ids out of range, and if ids are in so many pieces that this is no
    instance map.
    """
    if _is_binary(values):
        from skimage.measure import label  # slow to import, needed only for binary masks

        return np.asarray(label(values != 0, connectivity=2), dtype=np.int32)
    lowest, highest = int(values.min()), int(values.max())
    if lowest < 0 or highest > _MAX_ID:
        raise DataError(f"{file} has ids from {lowest} to {highest}; expected 0 to {_MAX_ID}. Renumber the nuclei.")
    instances = values.astype(np.int32)
    _check_pieces(instances, file)
    return instances


def _is_binary(values: npt.NDArray[Any]) -> bool:
    if values.dtype.itemsize > 1:
        return False
    found = set(np.unique(values).tolist())
    return found <= {0, 1} or found <= {0, 255}


def _check_pieces(instances: npt.NDArray[np.int32], file: Path | str) -> None:
    # Class maps and blurred binary masks have few values in very many pieces. In NuInsSeg, the ids of an image have at
    # most 1.25 pieces on average, so the bound allows for carelessly drawn maps.
    from skimage.measure import label

    n_ids = _count_ids(instances)
    _, n_pieces = label(instances, connectivity=2, background=0, return_num=True)
    if n_pieces > 3 * n_ids + 10:
        raise DataError(
            f"{file} is not an instance map: its {n_ids} different values form {n_pieces} separate pieces, but a "
            "nucleus is one piece. It may be a class map or a blurred mask. Give every nucleus its own number, or save "
            "a binary mask with only 0 and 255."
        )


def _count_ids(instances: npt.NDArray[np.int32]) -> int:
    if instances.max() < instances.size:  # otherwise bincount would need more memory than the map
        return int(np.count_nonzero(np.bincount(instances.ravel())[1:]))
    return int(np.count_nonzero(np.unique(instances)))
