"""Where the rows of a data set are kept while a network is trained on them."""

from __future__ import annotations

from collections.abc import Callable

import torch

from nucseg_pipeline.loading.batch import CPU
from nucseg_pipeline.loading.memory import available_device_memory, available_memory


def choose_preload_device(n_bytes: Callable[[], int], preload: str, device: torch.device) -> torch.device | None:
    """The device whose memory holds the rows of all epochs; None: rows are read again in every epoch.

    Args:
        n_bytes: size of all rows; not called where it does not matter.
        preload: on, off, or auto, which is on where the rows fit in half of the available memory.
        device: what is trained on. A CUDA device keeps the rows that fit in half of its own available memory.
    """
    if preload == "off":
        return None
    if device.type == "cuda" and n_bytes() < available_device_memory(device) / 2:
        return device
    return CPU if preload == "on" or n_bytes() < available_memory() / 2 else None
