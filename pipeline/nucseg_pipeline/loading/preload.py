"""How much memory is free, and where rows are kept in it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

import torch

from nucseg_pipeline.loading.batch import CPU


def choose_preload_device(n_bytes: Callable[[], int], preload: str, device: torch.device) -> torch.device | None:
    """Where to keep rows that every epoch shows; None: nowhere, they are read anew.

    Args:
        n_bytes: says what they take; not asked where that does not matter.
        preload: on, off, or auto: where they fit in half of the memory that is free.
        device: that is trained on. A CUDA device keeps what fits in half of its own memory that is free.
    """
    if preload == "off":
        return None
    if device.type == "cuda" and n_bytes() < free_device_bytes(device) / 2:
        return device
    return CPU if preload == "on" or n_bytes() < free_memory_bytes() / 2 else None


def free_device_bytes(device: torch.device) -> int:
    """Memory of a CUDA device that can be had, in bytes."""
    return int(torch.cuda.mem_get_info(device)[0])


def free_memory_bytes() -> int:
    """Memory that can be had without taking it from others, in bytes; if unknown, a quarter of what is built in."""
    with contextlib.suppress(OSError, StopIteration):
        # what the page cache holds can be had too, so Linux' own estimate is better than the count of free pages
        lines = Path("/proc/meminfo").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("MemAvailable:")).split()[1]) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 4
