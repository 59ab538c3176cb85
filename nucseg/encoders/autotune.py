"""Choose the fastest attention variant of a device, and the number of images per batch that fits into its memory.

A CPU always gets the same variant, so that one machine returns the same digits every time. GPUs differ too much from
one another: there, every variant is timed once, on the encoder's own blocks and at the batch size that it will run.
"""

from __future__ import annotations

import logging
import statistics
from collections.abc import Callable, Iterable, Iterator
from functools import partial

import torch
from torch import Tensor, nn

from nucseg.encoders.attention import VARIANTS
from nucseg.encoders.blocks import Attention
from nucseg.encoders.device import Hardware, batch_that_fits

logger = logging.getLogger(__name__)

REFERENCE = "mask"
"""The variant that runs on every device and in every precision; CPUs always use it.

On a CPU in float32 the extra columns of the other variants cost twice what the mask does. In bfloat16 with matrix
units (AMX) they are a fifth faster for a single block, but slower in the whole network, which shares their memory.
"""

TIMED_CALLS = 5
"""Calls per variant; their median counts."""

TOLERANCE = {"float32": 1e-3, "bfloat16": 0.1, "float16": 0.1}
"""Largest difference from the reference, in standard deviations, by precision; beyond it a kernel is broken."""

BLOCK_KINDS = {False: "over the grid", True: "in windows"}
"""The two kinds of blocks, by whether they attend within windows."""

Seconds = Callable[[Callable[[], object]], float]
"""Measures the duration of a call, in seconds."""


def tune(model: nn.Module, hardware: Hardware, batch_size: int | None, input_px: int) -> tuple[int, str]:
    """Choose the batch size where it is None and set the attention variants.

    Returns:
        The batch size, and the variants as text for the encoder's provenance.
    """
    variants = dict.fromkeys(BLOCK_KINDS, REFERENCE)
    if hardware.device.type == "cuda":
        batch_size = batch_size or batch_from_memory(model, hardware, input_px)
        seconds = partial(cuda_seconds, hardware.device)
        variants = {windows: fastest(model, windows, batch_size, hardware, seconds) for windows in BLOCK_KINDS}
        torch.cuda.empty_cache()
    for windows, variant in variants.items():
        use_attention(model, variant, windows=windows)
    return batch_size or 1, ", ".join(f"{variant} {BLOCK_KINDS[windows]}" for windows, variant in variants.items())


def use_attention(model: nn.Module, variant: str, *, windows: bool) -> None:
    """Set the attention variant of all blocks of one kind: within windows, or over the whole grid."""
    for attention in _attentions(model, windows):
        attention.attend = VARIANTS[variant]


def fastest(
    model: nn.Module,
    windows: bool,
    batch_size: int,
    hardware: Hardware,
    seconds: Seconds,
    candidates: Iterable[str] = tuple(VARIANTS),
) -> str:
    """Return the fastest variant for blocks of one kind, ignoring those that raise or differ from the reference."""
    attention = next(_attentions(model, windows), None)
    if attention is None:
        return REFERENCE
    x = _random_tokens(attention, batch_size, hardware)
    expected, times = None, dict[str, float]()
    for variant in (REFERENCE, *(variant for variant in candidates if variant != REFERENCE)):
        attention.attend = VARIANTS[variant]
        try:
            with torch.inference_mode():
                found = attention(x)  # also compiles what needs compiling
                expected = found if expected is None else expected
                if _largest_difference(found, expected) > TOLERANCE[hardware.precision]:
                    logger.warning("Attention by %s gives another result on %s: not used.", variant, hardware.name)
                    continue
                times[variant] = seconds(lambda: attention(x))
        except Exception as error:  # a kernel or compiler may lack support here: try the next variant
            logger.info("Attention by %s does not run on %s: %s", variant, hardware.name, error)
    logger.info("Attention %s, seconds: %s", BLOCK_KINDS[windows], times)
    return min(times, key=times.__getitem__, default=REFERENCE)


def cuda_seconds(device: torch.device, call: Callable[[], object]) -> float:
    """Median duration of a call that runs on the current stream of a CUDA device, in seconds."""
    stream = torch.cuda.current_stream(device)  # an event goes to the current device's stream unless given another
    return statistics.median(_time_once(call, stream) for _ in range(TIMED_CALLS))


def batch_from_memory(model: nn.Module, hardware: Hardware, input_px: int) -> int:
    """Images per batch on a CUDA device, from the memory that one and two images need besides the weights."""
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
        # the float32 copy counts too: images arrive in it
        model(torch.zeros(shape, device=hardware.device).to(hardware.dtype, memory_format=torch.channels_last))
    return int(torch.cuda.max_memory_allocated(hardware.device) - before)


def _time_once(call: Callable[[], object], stream: torch.cuda.Stream) -> float:
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    start.record(stream)
    call()
    end.record(stream)
    end.synchronize()
    return float(start.elapsed_time(end)) / 1000


def _attentions(model: nn.Module, windows: bool) -> Iterator[Attention]:
    every = (module for module in model.modules() if isinstance(module, Attention))
    return (attention for attention in every if (attention.windows is not None) == windows)


def _random_tokens(attention: Attention, batch_size: int, hardware: Hardware) -> Tensor:
    generator = torch.Generator(hardware.device).manual_seed(0)  # leaves torch's global random state alone
    shape = (batch_size, *attention.grid, attention.n_channels)
    return torch.randn(shape, generator=generator, device=hardware.device, dtype=hardware.dtype)


def _largest_difference(found: Tensor, expected: Tensor) -> float:
    """Largest difference in standard deviations; infinite if a value is not finite."""
    worst = float((found.float() - expected.float()).abs().max() / expected.float().std())
    return worst if worst == worst else float("inf")
