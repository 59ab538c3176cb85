"""On which device, in which precision and in which batches a torch encoder runs."""

from __future__ import annotations

import platform
from dataclasses import dataclass

import torch

from nucseg.errors import ConfigError, EncoderError

LARGEST_BATCH = 16
"""More images at once make no GPU faster."""

USABLE = 0.8
"""Share of the free memory that a batch may take; the rest is for what the allocator loses between its blocks."""


@dataclass(frozen=True)
class Hardware:
    """Where and how precisely an encoder computes."""

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
        """What the device is called, for the record."""
        if self.device.type == "cuda":
            return f"{self.device}: {torch.cuda.get_device_name(self.device)}"
        return f"{self.device}: {platform.machine()}"


def choose_hardware(device: str, precision: str) -> Hardware:
    """Resolve `auto`: CUDA where there is one, then Apple's GPU, then the CPU; bfloat16 on CUDA, else float32.

    Raises:
        ConfigError: a device of no known name.
        EncoderError: a device that this machine does not have.
    """
    chosen = _device(device)
    if precision != "auto":
        return Hardware(chosen, precision)
    native = chosen.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return Hardware(chosen, "bfloat16" if native else "float32")


def batch_that_fits(free_bytes: int, first_bytes: int, next_bytes: int) -> int:
    """Largest power of two, 1 to 16, that fits, where the first image takes `first_bytes`, every other `next_bytes`."""
    others = (USABLE * free_bytes - first_bytes) // max(next_bytes, 1)
    fitting = int(min(LARGEST_BATCH, max(1, 1 + others)))
    return 1 << (fitting.bit_length() - 1)


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device(_best())
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"Device {name!r} is none of auto, cpu, cuda, cuda:N, mps.") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise EncoderError(
            f"Asked for device {name}, found {torch.cuda.device_count()} CUDA device(s). "
            "Ask for auto or cpu, or install a torch built for this machine's GPU."
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise EncoderError(f"Asked for device {name}, which this machine does not have. Ask for auto or cpu.")
    if device.type not in ("cpu", "cuda", "mps"):
        raise ConfigError(f"Device {name!r} is none of auto, cpu, cuda, cuda:N, mps.")
    return device


def _best() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"
