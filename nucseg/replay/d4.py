"""The eight symmetries of the square, exact on any grid: flips, transposes and quarter turns.

Element 4 * transposed + 2 * flipped_vertically + flipped_horizontally: first the flips, then the transpose.

    0 identity          1 horizontal flip   2 vertical flip     3 half turn
    4 transpose         5 quarter turn (counterclockwise)   6 quarter turn (clockwise)   7 anti-transpose
"""

import xxhash
from torch import Tensor

from nucseg.errors import ConfigError

ELEMENTS = range(8)
"""The elements of the group; 0 is the identity."""


def apply(x: Tensor, element: int) -> Tensor:
    """Return a square map moved by an element; values are never changed. May be a view of the input.

    Shapes: (..., H, H) -> (..., H, H), any type

    Raises:
        ConfigError: the last two axes are not a square, or there is no such element.
    """
    _check_element(element)
    if x.ndim < 2 or x.shape[-1] != x.shape[-2]:
        raise ConfigError(f"Symmetries of the square need maps (..., H, H), got {tuple(x.shape)}. Pad to a square.")
    transposed, vertical, horizontal = _bits(element)
    axes = [axis for axis, flipped in ((-2, vertical), (-1, horizontal)) if flipped]
    flipped = x.flip(axes) if axes else x
    return flipped.mT if transposed else flipped


def compose(first: int, second: int) -> int:
    """Return the element that does `first` and then `second`."""
    _check_element(first)
    _check_element(second)
    # flips after a transpose are flips of the other axis before it
    flips = _swap_axes(second & 3) if first & 4 else second & 3
    return (first ^ second) & 4 | (first & 3) ^ flips


def inverse(element: int) -> int:
    """Return the element that undoes this one."""
    _check_element(element)
    return 4 | _swap_axes(element & 3) if element & 4 else element


def draw(seed: int, epoch: int, sample_id: str) -> int:
    """Return the element of a sample in an epoch: a hash of the arguments, so there is no random state to save.

    The id comes last and numbers contain no separator, so different arguments never hash the same text.
    """
    return xxhash.xxh3_64_intdigest(f"{seed}/{epoch}/{sample_id}".encode()) % len(ELEMENTS)


def _bits(element: int) -> tuple[bool, bool, bool]:
    return bool(element & 4), bool(element & 2), bool(element & 1)


def _swap_axes(flips: int) -> int:
    return (flips & 1) << 1 | flips >> 1


def _check_element(element: int) -> None:
    if element not in ELEMENTS:
        raise ConfigError(f"Symmetries of the square are numbered 0 to 7, got {element}.")
