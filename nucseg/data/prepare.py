"""Resize samples of any size to one square grid, with the same geometry for image, instance map and ignore mask."""

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from nucseg.data.resampling import area_mean
from nucseg.errors import ConfigError, DataError

Value = TypeVar("Value", bound=np.generic)

_BLOCK_FACTORS = range(2, 16)
"""Reductions by these integers are means of blocks, whose sums fit in 16 bits."""


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
    image: npt.NDArray[np.uint8], instances: npt.NDArray[np.int32], ignore: npt.NDArray[np.bool_], *, side_px: int = 256
) -> Prepared:
    """Bring image (H, W, 3), instances (H, W) and ignore (H, W) to side_px x side_px.

    The longest side becomes side_px, the other keeps the aspect ratio (see `content_size`), and the rest of the square,
    at the bottom or right, is padding. Of h prepared rows, row i covers the native interval [i H/h, (i+1) H/h); columns
    likewise. A prepared pixel of the image is the mean over this area, with native pixels weighted by their overlap and
    halves rounded up. An image smaller than the grid is interpolated linearly between the same pixel centres (Pillow's
    BILINEAR). Masks take the native pixel at the centre of the area, the lower or right one on a border: ids are never
    mixed, and a nucleus smaller than a prepared pixel can vanish. Raises DataError if the shapes do not match.
    """
    if image.shape != (*instances.shape, 3) or ignore.shape != instances.shape:
        raise DataError(
            f"The shapes of image {image.shape}, instances {instances.shape} and ignore {ignore.shape} do not match: "
            "expected (H, W, 3), (H, W) and (H, W)."
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
    """Resize only an image (H, W, 3) to (side_px, side_px, 3), as `prepare` does."""
    h, w = content_size((image.shape[0], image.shape[1]), side_px)
    square = np.zeros((side_px, side_px, 3), np.uint8)
    square[:h, :w] = resized(image, h, w)
    return square


def content_size(size: tuple[int, int], side_px: int) -> tuple[int, int]:
    """Height and width of an image of native (H, W) on the square grid, without the padding.

    As segment-anything's `ResizeLongestSide.get_preprocess_shape`, so that both grids have the same geometry.
    """
    if side_px < 1:
        raise ConfigError(f"The side of the prepared images must be at least 1 pixel, got {side_px}.")
    scale = side_px / max(size)
    h, w = (int(extent * scale + 0.5) for extent in size)
    if min(h, w) < 1:
        raise DataError(
            f"An image of {size[1]} x {size[0]} pixels would have no pixel left at {side_px}: cut it into tiles."
        )
    return h, w


def restore(values: npt.NDArray[np.float32], size: tuple[int, int]) -> npt.NDArray[np.float32]:
    """Resize a map (side, side) of the square grid, such as probabilities, back to the native (H, W).

    This inverts the geometry of `prepare`: the padding is cut off, and native pixels are interpolated linearly between
    the centres of prepared pixels (Pillow's BILINEAR; if the image was enlarged, a weighted mean over those that the
    pixel covers). Values stay within the range of the map.
    """
    h, w = content_size(size, len(values))
    content = Image.fromarray(np.ascontiguousarray(values[:h, :w], np.float32))
    return np.asarray(content.resize((size[1], size[0]), Image.Resampling.BILINEAR), np.float32)


def under_centres(values: npt.NDArray[Value], h: int, w: int) -> npt.NDArray[Value]:
    """Resize labels (H, W) to (h, w): each pixel takes the value at its centre, so that none are mixed."""
    return np.ascontiguousarray(values[np.ix_(centres(values.shape[0], h), centres(values.shape[1], w))])


def centres(n_native: int, n: int) -> npt.NDArray[np.int64]:
    """The native pixels (n,) of an axis that lie at the centres of its n prepared pixels."""
    # floor((i + 1/2) * n_native / n) in integers, so that rounding errors never decide about the nucleus of a pixel
    return (2 * np.arange(n) + 1) * n_native // (2 * n)


def resized(image: npt.NDArray[np.uint8], h: int, w: int) -> npt.NDArray[np.uint8]:
    """Resize an image (H, W, 3) to (h, w, 3) as `prepare` does, without padding."""
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
    """Mean over equal blocks in integers, twenty times as fast as over areas of any size."""
    shifted = [image[i::factor, j::factor] for i in range(factor) for j in range(factor)]
    total = np.full(shifted[0].shape, factor * factor // 2, np.uint16)
    for pixels in shifted:
        total += pixels
    return (total // (factor * factor)).astype(np.uint8)
