"""Samples of any size -> one square grid. Image, instance map and ignore mask keep one geometry."""

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from nucseg.data.resampling import area_mean
from nucseg.errors import ConfigError, DataError

Value = TypeVar("Value", bound=np.generic)

_BLOCK_FACTORS = range(2, 16)
"""Reductions by these whole numbers are sums of blocks; a larger block's sum may not fit 16 bits."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Prepared:
    """A sample on the square grid.

    Shapes:
        image      (side, side, 3)  uint8, RGB, padding 0
        instances  (side, side)     int32, padding 0
        ignore     (side, side)     bool, padding True
    """

    image: npt.NDArray[np.uint8]
    instances: npt.NDArray[np.int32]
    ignore: npt.NDArray[np.bool_]
    size: tuple[int, int]
    """Native (H, W)."""


def prepare(
    image: npt.NDArray[np.uint8],
    instances: npt.NDArray[np.int32],
    ignore: npt.NDArray[np.bool_],
    *,
    side_px: int = 256,
) -> Prepared:
    """Bring image (H, W, 3), instances (H, W) and ignore (H, W) to side_px x side_px.

    The longest side becomes side_px and the other keeps the aspect (see `content_size`); below and to the right it is
    padded. Of h prepared rows, row i covers the native interval [i H/h, (i+1) H/h); so with columns. The image takes
    the mean over that area, each native pixel weighted by its share, halves rounded up. An image smaller than the
    grid is interpolated linearly between the same pixel centres (Pillow's BILINEAR). Masks take the native pixel
    under the centre of the interval, on a border between two the lower or right one: ids are never mixed, and a
    nucleus smaller than a prepared pixel can vanish. Raises DataError if the shapes do not belong together.
    """
    if image.shape != (*instances.shape, 3) or ignore.shape != instances.shape:
        raise DataError(
            f"Image {image.shape}, instances {instances.shape} and ignore {ignore.shape} do not belong together: "
            "(H, W, 3), (H, W) and (H, W) expected."
        )
    native_h, native_w = instances.shape
    h, w = content_size((native_h, native_w), side_px)
    square = Prepared(
        image=prepare_image(image, side_px=side_px),
        instances=np.zeros((side_px, side_px), np.int32),
        ignore=np.ones((side_px, side_px), np.bool_),
        size=(native_h, native_w),
    )
    square.instances[:h, :w] = under_centres(instances, h, w)
    square.ignore[:h, :w] = under_centres(ignore, h, w)
    return square


def prepare_image(image: npt.NDArray[np.uint8], *, side_px: int = 256) -> npt.NDArray[np.uint8]:
    """Bring an image (H, W, 3) alone to (side_px, side_px, 3), as `prepare` does."""
    h, w = content_size((image.shape[0], image.shape[1]), side_px)
    square = np.zeros((side_px, side_px, 3), np.uint8)
    square[:h, :w] = resized(image, h, w)
    return square


def content_size(size: tuple[int, int], side_px: int) -> tuple[int, int]:
    """Height and width that an image of native (H, W) has on the square grid, without the padding.

    The rule of segment-anything's `ResizeLongestSide.get_preprocess_shape`, so that both grids share one geometry.
    """
    if side_px < 1:
        raise ConfigError(f"The side of the prepared images must be at least 1 pixel, got {side_px}.")
    scale = side_px / max(size)
    h, w = (int(extent * scale + 0.5) for extent in size)
    if min(h, w) < 1:
        raise DataError(f"An image of {size[1]} x {size[0]} pixels has no pixel left at {side_px}: cut it into tiles.")
    return h, w


def restore(values: npt.NDArray[np.float32], size: tuple[int, int]) -> npt.NDArray[np.float32]:
    """Bring a map (side, side) of the square grid, such as probabilities, back to the native (H, W).

    The geometry is that of `prepare`: the padding is cut off, and every native pixel takes the linear interpolation
    between the centres of the prepared pixels around it (Pillow's BILINEAR; where the image was enlarged, the mean
    over those that it covers). Values stay between the smallest and the largest of the map.
    """
    h, w = content_size(size, len(values))
    content = Image.fromarray(np.ascontiguousarray(values[:h, :w], np.float32))
    return np.asarray(content.resize((size[1], size[0]), Image.Resampling.BILINEAR), np.float32)


def under_centres(values: npt.NDArray[Value], h: int, w: int) -> npt.NDArray[Value]:
    """Bring labels or marks (H, W) to (h, w): each pixel takes the value under its centre, so that none is mixed."""
    return np.ascontiguousarray(values[np.ix_(_centres(values.shape[0], h), _centres(values.shape[1], w))])


def _centres(n_native: int, n: int) -> npt.NDArray[np.int64]:
    # floor((i + 1/2) * n_native / n) in whole numbers: no rounding decides which nucleus a pixel belongs to
    return (2 * np.arange(n) + 1) * n_native // (2 * n)


def resized(image: npt.NDArray[np.uint8], h: int, w: int) -> npt.NDArray[np.uint8]:
    """Bring an image (H, W, 3) to (h, w, 3) as `prepare` does, without any padding."""
    if image.shape[:2] == (h, w):
        return image
    if max(image.shape[:2]) <= max(h, w):
        return np.asarray(Image.fromarray(image).resize((w, h), Image.Resampling.BILINEAR))
    factor = image.shape[0] // h
    if factor in _BLOCK_FACTORS and image.shape[:2] == (h * factor, w * factor):
        return _block_mean(image, factor)
    rows = area_mean(image.astype(np.float64), np.arange(h + 1) * image.shape[0] / h, axis=0)
    mean = area_mean(rows, np.arange(w + 1) * image.shape[1] / w, axis=1)
    return np.asarray(np.floor(mean + 0.5), np.uint8)


def _block_mean(image: npt.NDArray[np.uint8], factor: int) -> npt.NDArray[np.uint8]:
    """What the mean over equal blocks comes to, in whole numbers: twenty times faster than over areas of any size."""
    parts = [image[i::factor, j::factor] for i in range(factor) for j in range(factor)]
    total = np.full(parts[0].shape, factor * factor // 2, np.uint16)
    for part in parts:
        total += part
    return (total // (factor * factor)).astype(np.uint8)
