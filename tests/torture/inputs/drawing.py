"""Images and masks for the trials."""

from io import BytesIO
from typing import Any

import numpy as np
import tifffile
from PIL import Image

SIDE_PX = 256
"""Images as large as prepared ones are stored unchanged, so that tests can compare every pixel."""


def picture(seed: int = 0, height: int = SIDE_PX, width: int = SIDE_PX) -> np.ndarray:
    """Smooth colours, of which JPEG loses little, without symmetry; (height, width, 3)."""
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / (20 + seed)) * np.cos(y / 30), x / max(width, 2), y / max(height, 2)]
    return np.stack([(wave + 1) * 80 + 10 * seed for wave in waves], axis=-1).clip(0, 255).astype(np.uint8)


def nuclei(height: int = SIDE_PX, width: int = SIDE_PX) -> np.ndarray:
    """Up to three squares that do not touch, with the ids 1 to 3; (height, width)."""
    ids = np.zeros((height, width), np.uint16)
    for number in range(1, 4):
        ids[20 * number : 20 * number + 12, 30 * number : 30 * number + 12] = number
    return ids


def encode(image: Image.Image | np.ndarray, kind: str = "PNG", **options: Any) -> bytes:
    """An image file written by Pillow."""
    file = BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(file, kind, **options)
    return file.getvalue()


def tiff(values: np.ndarray, **options: Any) -> bytes:
    """A TIFF written by tifffile."""
    file = BytesIO()
    tifffile.imwrite(file, values, **options)
    return file.getvalue()
