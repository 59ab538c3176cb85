"""Operations of an encoder for one image, and the peak performance of GPUs."""

from __future__ import annotations

from nucseg.encoders import EMBEDDING_SHAPE, VitShape
from nucseg.encoders.architectures import PATCH_PX

BFLOAT16_TFLOPS = {
    "B200": 2250,
    "H200": 989,
    "H100 PCIe": 756,
    "H100": 989,
    "A100": 312,
    "L40S": 362,
    "L4": 121,
    "A10G": 70,
    "A10": 125,
    "A40": 150,
    "RTX A6000": 155,
    "RTX 4090": 165,
    "RTX 3090": 71,
}
"""Dense bfloat16 peak with float32 accumulation according to the vendor, by part of the device name; first match."""


def peak_tflops(device_name: str) -> float | None:
    """Return the bfloat16 peak of a device, or None if it is not known."""
    return next((float(peak) for part, peak in BFLOAT16_TFLOPS.items() if part in device_name), None)


def useful_flop(shape: VitShape) -> float:
    """Floating-point operations for one image, without padded queries, biases and norms."""
    channels, side, _ = EMBEDDING_SHAPE
    tokens, width = side * side, shape.embed_dim
    linear = 2 * tokens * width * width * 12 * shape.depth
    n_global = len(shape.global_blocks)
    keys = n_global * tokens + (shape.depth - n_global) * shape.window_cells**2
    attention = 4 * tokens * width * keys
    patches = 2 * tokens * width * 3 * PATCH_PX**2
    neck = 2 * tokens * (width * channels + 9 * channels * channels)
    return float(linear + attention + patches + neck)
