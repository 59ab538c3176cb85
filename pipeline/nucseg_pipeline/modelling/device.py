"""Device, mixed precision and processes, as Hugging Face Accelerate drives them."""

from __future__ import annotations

import os
from collections.abc import Iterable

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import broadcast
from torch import nn

from nucseg.errors import ConfigError
from nucseg_pipeline.config import DistillConfig, TrainConfig

WORLD_SIZES = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
"""Where accelerate looks for the number of processes: torchrun's variable first, then those of MPI."""


def open_accelerator(config: TrainConfig | DistillConfig) -> Accelerator:
    """Take the device and the precision of a configuration; several processes come from `accelerate launch`.

    Each process normalises over its own share of a batch (BatchNorm), draws its own dropout and means its loss over the
    pixels of its own share, and the gradients of all are averaged: several end with other weights than one, and but for
    these three with the same (docs/pages/clusters.md).

    Raises ConfigError where the machine does not have what is asked for.
    """
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    choose_device(config.device)
    n_processes = _n_processes()
    if config.batch_size % n_processes:
        raise ConfigError(
            f"batch_size counts over all processes and must be a multiple of their number, {n_processes}; "
            f"got {config.batch_size}."
        )
    # accelerate keeps the first run's device and precision for the whole process; each of our runs has its own
    AcceleratorState._reset_state(reset_partial_state=n_processes == 1)
    accelerator = Accelerator(cpu=config.device == "cpu", mixed_precision=config.mixed_precision)
    if config.mixed_precision == "fp16" and accelerator.device.type != "cuda":
        raise ConfigError("mixed_precision fp16 needs a CUDA device. Take bf16 or no.")
    return accelerator


def _n_processes() -> int:
    """How many processes train together, as torchrun and MPI tell each of them.

    Raises ConfigError where accelerate was asked for several and has started this one alone: with --cpu and without
    MPI it says where they would meet, and starts no other.
    """
    told = next((os.environ[name] for name in WORLD_SIZES if name in os.environ), None)
    if told is None and "MASTER_ADDR" in os.environ and os.environ.get("ACCELERATE_USE_CPU", "").lower() == "true":
        raise ConfigError(
            "`accelerate launch --cpu` was asked for several processes and starts one alone, unless it is given "
            "--mpirun_hostfile. Use `torchrun --nproc_per_node N -m -- nucseg_pipeline ... --device cpu`."
        )
    return int(told or 1)


def choose_device(name: str) -> torch.device:
    """The device of a name: auto takes CUDA, then mps, then the CPU.

    Raises ConfigError where the machine does not have it.
    """
    if name.startswith("cuda"):
        index = int(name.partition(":")[2] or 0)
        if index >= torch.cuda.device_count():
            raise ConfigError(
                f"device is {name}, but torch sees {torch.cuda.device_count()} CUDA devices here. Take auto or cpu."
            )
        if ":" in name:
            torch.cuda.set_device(index)
        return torch.device("cuda", index)
    if name == "mps" and not torch.backends.mps.is_available():
        raise ConfigError("device is mps, but this machine has none. Take auto or cpu.")
    if name != "auto":
        return torch.device(name)
    found = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    return torch.device(found)


def reduce_sum(accelerator: Accelerator, values: Iterable[float]) -> list[float]:
    """Each value summed over all processes."""
    own = torch.tensor(list(values), dtype=torch.float64 if accelerator.device.type != "mps" else torch.float32)
    summed: list[float] = accelerator.reduce(own.to(accelerator.device), reduction="sum").tolist()
    return summed


def shard_options(accelerator: Accelerator, batch_size: int) -> dict[str, int]:
    """Arguments of `nucseg_pipeline.loading.batches.batches` for this process: batch size, rank and world size."""
    return {
        "batch_size": batch_size,
        "process": accelerator.process_index,
        "n_processes": accelerator.num_processes,
    }


def broadcast_buffers(accelerator: Accelerator, model: nn.Module) -> None:
    """Give every process the norms' statistics of the first, whose network is the one that is kept."""
    if accelerator.num_processes > 1:
        broadcast(list(model.buffers()))
