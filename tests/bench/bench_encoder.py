"""SAM's ViT-B as published against ours, on one machine, in one run; the weights are random, of full size.

    python tests/bench/bench_encoder.py --threads 2 --images 1

Ours is what `nucseg embed --encoder vit_b --weights FILE` runs: a checkpoint of a whole SAM is written to a temporary
folder and opened. The published network gets the same weights, the same tensor and the same precision.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from nucseg.encoders import ARCHITECTURES, open_encoder
from nucseg.encoders.preprocess import to_input
from nucseg.encoders.vit import build_published

Result = TypeVar("Result")


def main() -> None:
    """Measure and print."""
    options = parse_arguments()
    if options.threads:
        torch.set_num_threads(options.threads)
    published = draw_published(options.encoder)
    with tempfile.TemporaryDirectory() as folder:
        path = write_checkpoint(published, Path(folder) / "sam.pth")
        encoder, open_s = timed(
            lambda: open_encoder(options.encoder, weights=path, device=options.device, precision=options.precision)
        )
    precision = encoder.identity["precision"]
    print(f"{options.encoder}, {precision}, {encoder.provenance['device']}, ", end="")
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, batch {encoder.batch_size}")
    print(f"digested, read, checked and built in {open_s:.2f} s")

    images = draw_images(options.images)
    inputs, prepare_s = timed(lambda: [to_input(image) for image in images])
    device = torch.device(encoder.provenance["device"].split(": ")[0])
    ours, ours_s = measured(lambda: encoder.encode(images), options.repeats)
    same = deepcopy(published).to(device, getattr(torch, precision))
    theirs, theirs_s = measured(lambda: run(same, inputs), options.repeats)
    report("preprocessing alone", prepare_s, len(images))
    report("as published, batch 1", theirs_s, len(images))
    report("ours, with preprocessing and guard", ours_s, len(images))
    print(f"published / ours: {theirs_s / ours_s:.2f}")
    compare("from published in the same precision", ours, theirs)
    if precision != "float32":
        exact = run(published.to(device), inputs)
        compare("from published in float32", ours, exact)
        compare("published in this precision from its float32", theirs, exact)


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", choices=list(ARCHITECTURES), default="vit_b")
    parser.add_argument("--threads", type=int, help="of the CPU (default: torch's)")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--images", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=1, help="the fastest counts; before it one run to warm up")
    return parser.parse_args()


def draw_published(name: str) -> nn.Module:
    """Make the published encoder, with position terms that are not zero as they are at first."""
    torch.manual_seed(0)
    model = build_published(ARCHITECTURES[name].shape)
    for key, parameter in model.named_parameters():
        if "pos" in key:
            nn.init.normal_(parameter, std=0.1)
    return model.eval().requires_grad_(False)


def write_checkpoint(encoder: nn.Module, path: Path) -> Path:
    """Save the weights as a checkpoint of a whole SAM has them, with some of its other parts."""
    state = {f"image_encoder.{key}": value for key, value in encoder.state_dict().items()}
    state["prompt_encoder.no_mask_embed.weight"] = torch.zeros(1, 256)
    state["prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"] = torch.zeros(2, 128)
    torch.save(state, path)
    return path


def draw_images(n: int) -> list[NDArray[np.uint8]]:
    """Draw images of 512 px, coloured blocks, all different."""
    blocks = np.random.default_rng(0).integers(0, 256, (n, 32, 32, 3), dtype=np.uint8)
    return [image.repeat(16, axis=0).repeat(16, axis=1) for image in blocks]


def run(model: nn.Module, inputs: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Run the published network, one image at a time as SamPredictor does."""
    weight = next(model.parameters())
    with torch.inference_mode():
        tensors = [torch.from_numpy(x)[None].to(weight.device, weight.dtype) for x in inputs]
        return np.concatenate([model(x).float().cpu().numpy() for x in tensors])


def measured(function: Callable[[], Result], repeats: int) -> tuple[Result, float]:
    """Run once to warm up, then take the fastest of `repeats`; every result ends on the CPU, so the clock is right."""
    result = function()
    return result, min(timed(function)[1] for _ in range(repeats))


def timed(function: Callable[[], Result]) -> tuple[Result, float]:
    """Return a function's result and its seconds."""
    start = time.perf_counter()
    result = function()
    return result, time.perf_counter() - start


def report(what: str, seconds: float, n_images: int) -> None:
    """Print one line of the table."""
    print(f"{what:36} {seconds / n_images:8.3f} s/image {n_images / seconds:8.2f} images/s")


def compare(what: str, ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> None:
    """Print how far two embeddings are apart, in standard deviations."""
    difference = np.abs(ours - theirs) / theirs.std()
    print(f"difference {what}: worst {difference.max():.2g}, mean {difference.mean():.2g} standard deviations")


if __name__ == "__main__":
    main()
