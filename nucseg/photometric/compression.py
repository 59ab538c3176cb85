"""What optics and files take away: Gaussian blur and JPEG compression."""

import numpy as np

from nucseg.errors import DataError
from nucseg.photometric.stain_jitter import Image


def blur(image: Image, sigma: float) -> Image:
    """Blur an image (H, W, 3) uint8 with a Gaussian of `sigma` pixels, mirrored at the borders."""
    import cv2

    return np.asarray(cv2.GaussianBlur(image, (0, 0), sigma), np.uint8) if sigma else image


def compress(image: Image, quality: int) -> Image:
    """Compress an image (H, W, 3) uint8 RGB as JPEG of a quality from 1 to 100, and decompress it."""
    import cv2

    is_written, file = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    decoded = cv2.imdecode(file, cv2.IMREAD_COLOR) if is_written else None
    if decoded is None:
        raise DataError(f"An image of {image.shape[1]} x {image.shape[0]} pixels cannot be compressed as JPEG.")
    return np.ascontiguousarray(decoded[..., ::-1], np.uint8)
