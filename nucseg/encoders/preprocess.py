"""Convert an image of any size to the input of a SAM image encoder, as segment_anything's SamPredictor does.

The longest side is resized to 1024 with PIL's bilinear filter (utils/transforms.py, ResizeLongestSide), pixels are
normalised with SAM's constants, and the bottom and right are padded with zeros (modeling/sam.py, Sam.preprocess).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nucseg.encoders.architectures import INPUT_PX
from nucseg.errors import EncoderError

PREPROCESSING = "sam"
"""Name of this preprocessing in an encoder's identity; a change of it needs another name."""

PIXEL_MEAN = np.array([123.675, 116.28, 103.53], np.float32)
"""Mean of red, green and blue, in grey levels (segment_anything, build_sam.py)."""

PIXEL_STD = np.array([58.395, 57.12, 57.375], np.float32)
"""Standard deviation of red, green and blue, in grey levels."""


def check_image(image: NDArray[np.uint8], position: int) -> None:
    """Raise EncoderError unless `image`, the `position`-th of its batch, is uint8 RGB (H, W, 3)."""
    found = f"Image {position} of the batch is {_describe(image)}"
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        raise EncoderError(f"{found}; an encoder reads uint8 RGB of shape (H, W, 3). Convert it to uint8 first.")
    if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise EncoderError(f"{found}; an encoder reads RGB of shape (H, W, 3). Convert it to RGB first.")
    if 0 in resized_shape(image.shape[0], image.shape[1]):
        raise EncoderError(
            f"{found}, too long and thin: scaled to {INPUT_PX} px its short side vanishes. Cut it into shorter images."
        )


def resized_shape(height: int, width: int) -> tuple[int, int]:
    """Height and width once the longest side is INPUT_PX (ResizeLongestSide.get_preprocess_shape)."""
    scale = INPUT_PX * 1.0 / max(height, width)
    return int(height * scale + 0.5), int(width * scale + 0.5)


def resize(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Resize the longest side of (H, W, 3) to INPUT_PX; an image of that size is returned unchanged."""
    height, width = resized_shape(image.shape[0], image.shape[1])
    if (height, width) == image.shape[:2]:
        return image
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))


def to_input(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Turn (H, W, 3) uint8 RGB into the (3, 1024, 1024) float32 that the encoder reads."""
    resized = resize(image)
    height, width = resized.shape[:2]
    padded = np.zeros((3, INPUT_PX, INPUT_PX), np.float32)
    for channel in range(3):
        # by channel: twice as fast as normalising (H, W, 3) and transposing afterwards
        plane = padded[channel, :height, :width]
        np.subtract(resized[:, :, channel], PIXEL_MEAN[channel], out=plane)
        plane /= PIXEL_STD[channel]
    return padded


def _describe(image: object) -> str:
    if isinstance(image, np.ndarray):
        return f"{image.dtype} of shape {image.shape}"
    return f"a {type(image).__name__}"
