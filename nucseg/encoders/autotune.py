"""Which exact way of attention a device runs fastest, and how many images at once fit into its memory.

A CPU has a fixed choice, so that one machine gives the same digits every time. GPUs differ too much from one another:
there every way is timed once, on the encoder's own blocks, at the batch it will run.
"""

from __future__ import annotations

import logging
import statistics
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor, nn

from nucseg.encoders.attention import VARIANTS
from nucseg.encoders.blocks import Attention
from nucseg.encoders.device import Hardware, batch_that_fits

logger = logging.getLogger(__name__)

SAFE = "mask"
"""The way that every device and precision has, and the one of CPUs.

In float32 the further columns of the others cost a CPU twice what the mask does. In bfloat16 with matrix units (AMX)
they win by a fifth when a block runs alone, and lose in the whole network, whose memory they have to share.
"""

TIMED_CALLS = 5
"""Calls of which the median counts."""

SAME = {"float32": 1e-3, "bfloat16": 0.1, "float16": 0.1}
"""Largest difference between two exact ways, in standard deviations, by precision; more is a broken kernel."""

PLACES = {False: "over the grid", True: "in windows"}
"""The two kinds of blocks, by whether they attend within windows."""

Seconds = Callable[[Callable[[], object]], float]
"""Times one call."""


def tune(model: nn.Module, hardware: Hardware, batch_size: int | None, input_px: int) -> tuple[int, str]:
    """Choose the batch size where it is None, set the ways of attention; return the batch size and the ways' record."""
    ways = dict.fromkeys(PLACES, SAFE)
    if hardware.device.type == "cuda":
        batch_size = batch_size or batch_from_memory(model, hardware, input_px)
        ways = {windows: fastest(model, windows, batch_size, hardware, cuda_seconds) for windows in PLACES}
        torch.cuda.empty_cache()
    for windows, way in ways.items():
        use_attention(model, way, windows=windows)
    return batch_size or 1, ", ".join(f"{way} {PLACES[windows]}" for windows, way in ways.items())


def use_attention(model: nn.Module, way: str, *, windows: bool) -> None:
    """Set the way of attention in all blocks of one kind: within windows, or over the whole grid."""
    for attention in _attentions(model, windows):
        attention.attend = VARIANTS[way]


def fastest(
    model: nn.Module,
    windows: bool,
    batch_size: int,
    hardware: Hardware,
    seconds: Seconds,
    ways: Iterable[str] = tuple(VARIANTS),
) -> str:
    """Return the fastest way of attention in blocks of one kind; ways that raise, or differ from SAFE, are left out."""
    attention = next(_attentions(model, windows), None)
    if attention is None:
        return SAFE
    x = _tokens(attention, batch_size, hardware)
    expected, times = None, dict[str, float]()
    for way in (SAFE, *(way for way in ways if way != SAFE)):
        attention.attend = VARIANTS[way]
        try:
            with torch.inference_mode():
                found = attention(x)  # compiles what there is to compile, too
                expected = found if expected is None else expected
                if _differ(found, expected) > SAME[hardware.precision]:
                    logger.warning("Attention by %s gives another result on %s: not used.", way, hardware.name)
                    continue
                times[way] = seconds(lambda: attention(x))
        except Exception as error:  # what a kernel or a compiler cannot do here, another way can
            logger.info("Attention by %s does not run on %s: %s", way, hardware.name, error)
    logger.info("Attention %s, seconds: %s", PLACES[windows], times)
    return min(times, key=times.__getitem__, default=SAFE)


def cuda_seconds(call: Callable[[], object]) -> float:
    """Median time of a call on the current CUDA device's stream."""
    return statistics.median(_one_call(call) for _ in range(TIMED_CALLS))


def batch_from_memory(model: nn.Module, hardware: Hardware, input_px: int) -> int:
    """Images at once on a CUDA device, by what one and what two really take beside the weights."""
    try:
        one, two = (_peak_bytes(model, n, hardware, input_px) for n in (1, 2))
    except torch.OutOfMemoryError:
        return 1
    torch.cuda.empty_cache()
    free_bytes, _ = torch.cuda.mem_get_info(hardware.device)
    return batch_that_fits(free_bytes, one, two - one)


def _peak_bytes(model: nn.Module, n_images: int, hardware: Hardware, input_px: int) -> int:
    torch.cuda.reset_peak_memory_stats(hardware.device)
    before = torch.cuda.memory_allocated(hardware.device)
    shape = (n_images, 3, input_px, input_px)
    with torch.inference_mode():
        # float32 as well: images arrive in it
        model(torch.zeros(shape, device=hardware.device).to(hardware.dtype, memory_format=torch.channels_last))
    return int(torch.cuda.max_memory_allocated(hardware.device) - before)


def _one_call(call: Callable[[], object]) -> float:
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    start.record()
    call()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) / 1000


def _attentions(model: nn.Module, windows: bool) -> Iterator[Attention]:
    every = (module for module in model.modules() if isinstance(module, Attention))
    return (attention for attention in every if (attention.windows is not None) == windows)


def _tokens(attention: Attention, batch_size: int, hardware: Hardware) -> Tensor:
    generator = torch.Generator(hardware.device).manual_seed(0)  # torch's own random state stays as it is
    shape = (batch_size, *attention.grid, attention.n_channels)
    return torch.randn(shape, generator=generator, device=hardware.device, dtype=hardware.dtype)


def _differ(found: Tensor, expected: Tensor) -> float:
    """Largest difference in standard deviations; infinite where anything is not finite."""
    worst = float((found.float() - expected.float()).abs().max() / expected.float().std())
    return worst if worst == worst else float("inf")
