"""The device, precision and batch size that a torch encoder runs with."""

from __future__ import annotations

import platform
from contextlib import suppress
from dataclasses import dataclass

import torch

from nucseg.errors import ConfigError, EncoderError

MAX_BATCH = 16
"""Larger batches make no GPU faster."""

USABLE_MEMORY = 0.8
"""Share of the free memory that a batch may use; the rest allows for fragmentation in the allocator."""


@dataclass(frozen=True)
class Hardware:
    """The device and precision that an encoder computes with."""

    device: torch.device
    """CPU, a CUDA GPU or Apple's."""

    precision: str
    """float32, bfloat16 or float16."""

    @property
    def dtype(self) -> torch.dtype:
        """The precision as torch names it."""
        dtype: torch.dtype = getattr(torch, self.precision)
        return dtype

    @property
    def name(self) -> str:
        """The device's name, for the encoder's provenance."""
        if self.device.type == "cuda":
            return f"{self.device}: {torch.cuda.get_device_name(self.device)}"
        return f"{self.device}: {platform.machine()}"


def choose_hardware(device: str, precision: str) -> Hardware:
    """Resolve `auto`: CUDA if there is a GPU, then Apple's GPU, then the CPU; bfloat16 on CUDA, otherwise float32.

    Raises:
        ConfigError: the device's name is unknown.
        EncoderError: this machine does not have the device.
    """
    chosen = _device(device)
    if precision != "auto":
        return Hardware(chosen, precision)
    native = chosen.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return Hardware(chosen, "bfloat16" if native else "float32")


def batch_that_fits(free_bytes: int, first_bytes: int, next_bytes: int) -> int:
    """Largest power of two, 1 to 16, that fits if the first image takes `first_bytes` and each other `next_bytes`."""
    others = (USABLE_MEMORY * free_bytes - first_bytes) // max(next_bytes, 1)
    fitting = int(min(MAX_BATCH, max(1, 1 + others)))
    return 1 << (fitting.bit_length() - 1)


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device(_best())
    device = None
    with suppress(RuntimeError):  # torch cannot parse it
        device = torch.device(name)
    if device is None or device.type not in ("cpu", "cuda", "mps"):
        raise ConfigError(f"Device {name!r} is not known. Use auto, cpu, cuda, cuda:N or mps.")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise EncoderError(
            f"Asked for device {name}, found {torch.cuda.device_count()} CUDA device(s). "
            "Ask for auto or cpu, or install a torch built for this machine's GPU."
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise EncoderError(f"Asked for device {name}, which this machine does not have. Ask for auto or cpu.")
    return device


def _best() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"
