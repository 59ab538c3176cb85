"""What the numbers in a mask file mean: instance map, or binary mask whose connected components are the nuclei."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nucseg.errors import DataError

_MAX_ID = np.iinfo(np.int32).max


def instances_from(values: npt.NDArray[Any], file: Path | str) -> npt.NDArray[np.int32]:
    """Turn the numbers of a mask (H, W) into an instance map (H, W), 0 = background.

    Only 0 and 1, or only 0 and 255, in at most 8 bits: a binary mask, whose connected components (diagonals
    connect) are numbered. Everything else is an instance map and keeps its ids. Raises DataError, naming `file` (or
    the part of a file that a string describes), for ids that do not fit and for a map whose ids lie in so many pieces
    that it must be something else.
    """
    if _is_binary(values):
        from skimage.measure import label  # slow to import, needed only for binary masks

        return np.asarray(label(values != 0, connectivity=2), dtype=np.int32)
    lowest, highest = int(values.min()), int(values.max())
    if lowest < 0 or highest > _MAX_ID:
        raise DataError(
            f"{file} holds ids from {lowest} to {highest}; 0 to {_MAX_ID} expected. Number the nuclei anew."
        )
    instances = values.astype(np.int32)
    _check_pieces(instances, file)
    return instances


def _is_binary(values: npt.NDArray[Any]) -> bool:
    if values.dtype.itemsize > 1:
        return False
    found = set(np.unique(values).tolist())
    return found <= {0, 1} or found <= {0, 255}


def _check_pieces(instances: npt.NDArray[np.int32], file: Path | str) -> None:
    # Class maps and blurred binary masks have few values in very many pieces. In NuInsSeg an id has 1.25 pieces
    # at most on average over an image, so the bound leaves room for carelessly drawn maps.
    from skimage.measure import label

    n_ids = _count_ids(instances)
    _, n_pieces = label(instances, connectivity=2, background=0, return_num=True)
    if n_pieces > 3 * n_ids + 10:
        raise DataError(
            f"{file} is no instance map: {n_ids} different values lie in {n_pieces} separate pieces, where a nucleus "
            "is one. A class map or a blurred mask looks like this. Give every nucleus a number of its own, or save "
            "a binary mask that holds only 0 and 255."
        )


def _count_ids(instances: npt.NDArray[np.int32]) -> int:
    if instances.max() < instances.size:  # else there would be more to count than pixels
        return int(np.count_nonzero(np.bincount(instances.ravel())[1:]))
    return int(np.count_nonzero(np.unique(instances)))
