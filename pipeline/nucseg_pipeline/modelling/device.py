"""Device, mixed precision and processes of a training, through Hugging Face Accelerate."""

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
"""Variables from which accelerate reads the number of processes: first torchrun's, then those of MPI."""


def open_accelerator(config: TrainConfig | DistillConfig) -> Accelerator:
    """Set up the device and precision of a configuration; `accelerate launch` or torchrun start several processes.

    Each process has its own BatchNorm statistics and dropout, and averages the loss over the pixels of its own share
    of a batch; gradients are averaged over processes. Because of these three, and only these, the weights depend on
    the number of processes (docs/pages/clusters.md).

    Raises:
        ConfigError: the machine does not have the device, or the batch size does not fit the number of processes.
    """
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    choose_device(config.device)
    n_processes = _n_processes()
    if config.batch_size % n_processes:
        raise ConfigError(
            f"batch_size is the total over all processes and must be a multiple of their number, {n_processes}; "
            f"got {config.batch_size}."
        )
    # accelerate keeps the device and precision of the first run for the whole process, but each run has its own
    AcceleratorState._reset_state(reset_partial_state=n_processes == 1)
    accelerator = Accelerator(cpu=config.device == "cpu", mixed_precision=config.mixed_precision)
    if config.mixed_precision == "fp16" and accelerator.device.type != "cuda":
        raise ConfigError("mixed_precision fp16 needs a CUDA device. Use bf16 or no.")
    return accelerator


def _n_processes() -> int:
    """Number of processes that train together, from the environment that torchrun or MPI sets.

    Raises:
        ConfigError: `accelerate launch --cpu` without MPI was asked for several processes: it sets MASTER_ADDR, but
            starts only this one.
    """
    world_size = next((os.environ[name] for name in WORLD_SIZES if name in os.environ), None)
    on_cpu = os.environ.get("ACCELERATE_USE_CPU", "").lower() == "true"
    if world_size is None and on_cpu and "MASTER_ADDR" in os.environ:
        raise ConfigError(
            "`accelerate launch --cpu` starts a single process, even if asked for several, unless it is given "
            "--mpirun_hostfile. Use `torchrun --nproc_per_node N -m -- nucseg_pipeline ... --device cpu`."
        )
    return int(world_size or 1)


def choose_device(name: str) -> torch.device:
    """The device with this name; auto is CUDA if there is a GPU, then mps, then the CPU.

    Raises:
        ConfigError: the machine does not have it, or there is no such device.
    """
    if name.startswith("cuda"):
        index = int(name.partition(":")[2] or 0)
        if index >= torch.cuda.device_count():
            raise ConfigError(
                f"device is {name}, but torch finds {torch.cuda.device_count()} CUDA devices here. Use auto or cpu."
            )
        if ":" in name:
            torch.cuda.set_device(index)
        return torch.device("cuda", index)
    if name == "mps" and not torch.backends.mps.is_available():
        raise ConfigError("device is mps, but this machine has none. Use auto or cpu.")
    if name != "auto":
        try:
            return torch.device(name)
        except RuntimeError:
            raise ConfigError(f"There is no device {name!r}. Use auto, cpu, cuda, cuda:N or mps.") from None
    found = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    return torch.device(found)


def reduce_sum(accelerator: Accelerator, values: Iterable[float]) -> list[float]:
    """Sum each value over all processes."""
    own = torch.tensor(list(values), dtype=torch.float64 if accelerator.device.type != "mps" else torch.float32)
    summed: list[float] = accelerator.reduce(own.to(accelerator.device), reduction="sum").tolist()
    return summed


def shard_options(accelerator: Accelerator, batch_size: int) -> dict[str, int]:
    """Arguments of `nucseg_pipeline.loading.batches.batches` for this process."""
    return {
        "batch_size": batch_size,
        "process": accelerator.process_index,
        "n_processes": accelerator.num_processes,
    }


def broadcast_buffers(accelerator: Accelerator, model: nn.Module) -> None:
    """Copy the norms' statistics of the first process, whose network is saved, to all others."""
    if accelerator.num_processes > 1:
        broadcast(list(model.buffers()))
