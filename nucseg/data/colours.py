"""Convert decoded pixels to opaque RGB."""

import numpy as np
import numpy.typing as npt
from PIL import Image as PillowImage

Pixels = npt.NDArray[np.uint8]


def on_white(picture: PillowImage.Image) -> Pixels:
    """Composite a picture with transparency on white, the colour of an empty slide: RGB (H, W, 3)."""
    clear = picture.convert("RGBA")
    white = PillowImage.new("RGBA", clear.size, "white")
    white.alpha_composite(clear)
    return np.array(white.convert("RGB"))


def alpha_on_white(rgb: Pixels, alpha: Pixels, *, premultiplied: bool) -> Pixels:
    """The same for RGB (H, W, 3) and alpha (H, W, 1); premultiplied colours are already weighted by their alpha."""
    return on_white(_picture("RGBa" if premultiplied else "RGBA", np.concatenate([rgb, alpha], axis=2)))


def from_ycbcr(values: Pixels) -> Pixels:
    """Convert full-range YCbCr (ITU-R BT.601, as in JFIF) to RGB, both (H, W, 3)."""
    return np.array(_picture("YCbCr", values).convert("RGB"))


def from_cmyk(values: Pixels) -> Pixels:
    """Convert CMYK (H, W, 4), where 0 is no ink, to RGB (H, W, 3) without a colour profile."""
    return np.array(_picture("CMYK", values).convert("RGB"))


def _picture(mode: str, values: Pixels) -> PillowImage.Image:
    return PillowImage.frombytes(mode, (values.shape[1], values.shape[0]), values.tobytes())
