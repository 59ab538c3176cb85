"""Resample arrays, or parts of them, from one pixel grid to another, one axis at a time."""

import math

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]


def area_mean(values: Floats, edges: npt.NDArray[np.float64], axis: int) -> Floats:
    """Mean over intervals of an axis: interval i goes from edges[i] to edges[i + 1].

    Pixel p covers [p, p + 1) and is weighted by its overlap with the interval. The intervals have equal lengths and lie
    within the axis, up to rounding.
    """
    n_native, n = values.shape[axis], len(edges) - 1
    first = np.minimum(edges[:-1].astype(np.int64), n_native - 1)
    length = edges[-1] - edges[0]
    total: Floats = np.zeros_like(np.take(values, first, axis))
    for pixel in (first + step for step in range(math.ceil(length / n) + 1)):
        share = (np.minimum(edges[1:], pixel + 1) - np.maximum(edges[:-1], pixel)).clip(0)
        total += np.take(values, pixel, axis, mode="clip") * _along(share, values, axis)
    total *= n / length
    return total


def linear(values: Floats, positions: npt.NDArray[np.float64], axis: int) -> Floats:
    """Linear interpolation along an axis at positions in pixels; the centre of pixel p is at p + 1/2.

    Beyond the first and last centre, their values are repeated.
    """
    last = values.shape[axis] - 1
    centred = (positions - 0.5).clip(0, last)
    below = np.minimum(centred.astype(np.int64), last)
    share = _along(centred - below, values, axis)
    lower = np.take(values, below, axis)
    return np.asarray(lower + share * (np.take(values, np.minimum(below + 1, last), axis) - lower))


def resampled(values: Floats, start: float, step: float, n: int, axis: int) -> Floats:
    """Resample an axis to n pixels, of which pixel i covers [start + i step, start + (i + 1) step).

    Pixels larger than the native ones are means over what they cover; smaller ones are interpolated between centres.
    """
    edges = start + step * np.arange(n + 1)
    if step > 1:
        inside = edges.clip(0, values.shape[axis])
        # less than 1 for an interval that extends beyond the axis
        share = np.diff(inside) * n / max(inside[-1] - inside[0], step / 2)
        return np.asarray(area_mean(values, inside, axis) / _along(share, values, axis))
    return linear(values, (edges[:-1] + edges[1:]) / 2, axis)


def _along(share: npt.NDArray[np.float64], values: Floats, axis: int) -> Floats:
    """Shape weights, one for each position on the axis, so that they multiply the values."""
    return np.expand_dims(share.astype(values.dtype), tuple(other for other in range(values.ndim) if other != axis))
