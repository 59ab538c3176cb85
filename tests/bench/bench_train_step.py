"""Seconds for one training step: forward, loss, backward, Adam, on random data.

    python tests/bench/bench_train_step.py --widths 4 8 --batch-size 8 --threads 2

The variants alternate over several rounds, and the fastest round of each counts, so that other work on the machine
affects all of them equally. On a busy machine use processor time with one thread, because waiting threads spin. Ratios
are of processor time, on a GPU of elapsed time, to the first variant of the same width.
"""

import argparse
import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from nucseg.losses import SegmentationLoss
from nucseg.models import ModelConfig, build_model

LAYOUTS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}


@dataclass(frozen=True)
class Variant:
    """One row of the table."""

    width: int
    fusion: str
    layout: str
    precision: str


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="eunet3plus")
    parser.add_argument(
        "--widths", type=int, nargs="+", default=[4, 8], help="the papers use 32: minutes per step on a CPU"
    )
    parser.add_argument("--fusions", nargs="+", default=["none", "xgfb"])
    parser.add_argument("--layouts", nargs="+", default=["channels_last"], choices=LAYOUTS)
    parser.add_argument("--precisions", nargs="+", default=["float32", "bfloat16"], choices=["float32", "bfloat16"])
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--side-px", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    return parser.parse_args()


def make_batch(options: argparse.Namespace) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    n_images, side = options.batch_size, options.side_px
    image = torch.rand(n_images, 3, side, side)
    embedding = 0.1 * torch.randn(n_images, 256, 64, 64)
    target = (torch.rand(n_images, side, side) < 0.2).long()
    ignore = torch.zeros(n_images, side, side, dtype=torch.bool)
    return tuple(x.to(options.device) for x in (image, embedding, target, ignore))


def make_step(variant: Variant, options: argparse.Namespace) -> tuple[Callable[[], None], int]:
    model = build_model(options.model, ModelConfig(width=variant.width, fusion=variant.fusion))
    model.to(device=options.device, memory_format=LAYOUTS[variant.layout])
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-4)
    measure, (image, embedding, target, ignore) = SegmentationLoss(), make_batch(options)

    def step() -> None:
        with torch.autocast(options.device, torch.bfloat16, enabled=variant.precision == "bfloat16"):
            logits = model(image, embedding)
        optimiser.zero_grad()
        measure(logits, target, ignore).backward()
        optimiser.step()
        if options.device != "cpu":
            torch.accelerator.synchronize()

    return step, sum(p.numel() for p in model.parameters())


def time_in_turns(steps: list[Callable[[], None]], rounds: int) -> list[tuple[float, float]]:
    """Return the least elapsed and the least processor time of each step, in seconds."""
    quickest = [(float("inf"), float("inf"))] * len(steps)
    for step in steps:
        step()  # the first call chooses kernels and fills caches
    for _ in range(rounds):
        for i, step in enumerate(steps):
            start, start_cpu = time.perf_counter(), time.process_time()
            step()
            elapsed, cpu = time.perf_counter() - start, time.process_time() - start_cpu
            quickest[i] = min(quickest[i][0], elapsed), min(quickest[i][1], cpu)
    return quickest


def main() -> None:
    options = parse_arguments()
    torch.set_num_threads(options.threads)
    print(f"batch {options.batch_size}, {options.side_px} px, {options.device}, {torch.get_num_threads()} threads")
    print("width   fusion         layout precision  parameters  seconds  cpu s  ratio")
    for width in options.widths:
        rest = itertools.product(options.fusions, options.layouts, options.precisions)
        variants = [Variant(width, *names) for names in rest]
        steps, n_parameters = zip(*(make_step(variant, options) for variant in variants), strict=True)
        seconds = time_in_turns(list(steps), options.rounds)
        clock = 1 if options.device == "cpu" else 0  # processor or elapsed time
        for v, n, times in zip(variants, n_parameters, seconds, strict=True):
            ratio = times[clock] / seconds[0][clock]
            print(f"{v.width:>5} {v.fusion:>8} {v.layout:>14} {v.precision:>9} {n:>11,}", end="")
            print(f" {times[0]:>8.3f} {times[1]:>6.3f} {ratio:>6.2f}", flush=True)


if __name__ == "__main__":
    main()
