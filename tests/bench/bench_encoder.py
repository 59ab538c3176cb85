"""Compare SAM's encoder as published with ours, on one machine in one run, with random weights of full size.

    python tests/bench/bench_encoder.py --threads 2
    python tests/bench/bench_encoder.py --device cuda --precision bfloat16 --compile
    python tests/bench/bench_encoder.py --onnx mobile_sam_encoder.onnx --threads 2

Every candidate runs once to warm up, and those results are compared; then all alternate over several rounds, because
the machine may be busy with other work. The published network has the same weights and encodes one image at a time, as
SamPredictor does. Ours is measured as the bare network with every attention variant, and as the opened encoder, which
also resizes, normalises and checks.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from encoder_work import peak_tflops, useful_flop
from numpy.typing import NDArray
from torch import nn

from nucseg.encoders import ARCHITECTURES, Encoder, open_encoder
from nucseg.encoders.architectures import INPUT_PX, PRECISIONS, bfloat16_error
from nucseg.encoders.attention import VARIANTS
from nucseg.encoders.autotune import tune, use_attention
from nucseg.encoders.device import Hardware, choose_hardware
from nucseg.encoders.preprocess import resize, to_input
from nucseg.encoders.sam import normalised
from nucseg.encoders.vit import build_published, build_vit

Images = Sequence[NDArray[np.uint8]]
Embeddings = NDArray[np.float32]
Candidate = Callable[[], Embeddings]

NO_KERNEL_ON_CPU = ("narrow", "flex")
"""Attention variants that are many times slower than the others on a CPU; measured there only on request."""


@dataclass(frozen=True, eq=False)
class Result:
    """The embeddings of a candidate, and its median times."""

    embeddings: Embeddings
    seconds: float
    cpu_seconds: float
    """Of all threads together: the better measure if other programs use the processor."""


def main() -> None:
    """Measure and print."""
    options = parse_arguments()
    torch.set_num_threads(options.threads)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, median of {options.rounds} rounds")
    if options.onnx:
        show(measure(onnx_candidates(options), options.rounds), options.images or 1)
        return
    device = choose_hardware(options.device, "auto").device
    images = draw_images(options.images or (1 if device.type == "cpu" else 64))
    shape = ARCHITECTURES[options.encoder].shape
    show(measure(dict(vit_candidates(options, device, images)), options.rounds), len(images), useful_flop(shape) / 1e12)
    print(f"bfloat16 is expected within {bfloat16_error(shape.depth):.3f} standard deviations (root mean square)")
    show_hardware(device)


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", choices=list(ARCHITECTURES), default="vit_b")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of the CPU")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", nargs="+", choices=PRECISIONS, default=["float32", "bfloat16"])
    parser.add_argument("--images", type=int, help="default: 1 on a CPU, 64 on a GPU")
    parser.add_argument("--batch-size", type=int, help="default: chosen by the encoder")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument(
        "--variants", nargs="+", choices=list(VARIANTS), help="of attention; default: all with a kernel"
    )
    parser.add_argument("--compile", action="store_true", help="also measure the compiled network; takes minutes")
    parser.add_argument("--onnx", type=Path, help="measure this exported encoder instead of SAM's")
    return parser.parse_args()


def vit_candidates(
    options: argparse.Namespace, device: torch.device, images: Images
) -> Iterator[tuple[str, Candidate]]:
    """All candidates by name; the first, the published network in float32, is the reference."""
    published = draw_published(options.encoder)
    for precision in dict.fromkeys(["float32", *options.precision]):
        copied = deepcopy(published).to(device, getattr(torch, precision))
        yield f"published, {precision}, batch 1", lambda copied=copied: run_published(copied, images)
    for precision in options.precision:
        yield from our_candidates(options, Hardware(device, precision), published, images)


def our_candidates(
    options: argparse.Namespace, hardware: Hardware, published: nn.Module, images: Images
) -> Iterator[tuple[str, Candidate]]:
    """Ours in one precision: the network with every attention variant, compiled on request, and the opened encoder."""
    model = build_vit(ARCHITECTURES[options.encoder].shape, published.state_dict(), hardware)
    batch_size, _ = tune(model, hardware, options.batch_size, INPUT_PX)
    resized = [resize(image) for image in images]
    named = f"{hardware.precision}, batch {batch_size}"
    on_cpu = hardware.device.type == "cpu"
    for variant in options.variants or [name for name in VARIANTS if not (on_cpu and name in NO_KERNEL_ON_CPU)]:
        yield (
            f"ours by {variant}, {named}",
            lambda variant=variant: run_ours(model, variant, hardware, resized, batch_size),
        )
    if options.compile:
        compiled = torch.compile(deepcopy(model), dynamic=False)
        yield f"ours compiled, {named}", lambda: run_ours(compiled, None, hardware, resized, batch_size)
    encoder, seconds = open_checkpoint(options, hardware, published)
    setup = f"{encoder.provenance['device']}, {encoder.provenance['attention']}"
    print(f"{hardware.precision}: {setup}, opened in {seconds:.1f} s")
    yield f"ours as opened, {hardware.precision}, batch {encoder.batch_size}", lambda: encoder.encode(images)


def open_checkpoint(options: argparse.Namespace, hardware: Hardware, published: nn.Module) -> tuple[Encoder, float]:
    """Open a checkpoint of a whole SAM as a user does; return the encoder and the seconds it took."""
    with tempfile.TemporaryDirectory() as folder:
        path = write_checkpoint(published, Path(folder) / "sam.pth")
        start = time.perf_counter()
        encoder = open_encoder(
            options.encoder,
            weights=path,
            device=str(hardware.device),
            precision=hardware.precision,
            batch_size=options.batch_size,
        )
        return encoder, time.perf_counter() - start


def onnx_candidates(options: argparse.Namespace) -> dict[str, Candidate]:
    """An exported encoder with ONNX Runtime's defaults and the same threads, and as opened by nucseg."""
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = options.threads
    session = onnxruntime.InferenceSession(str(options.onnx), settings, providers=onnxruntime.get_available_providers())
    encoder = open_encoder(
        f"onnx:{options.onnx}", device=options.device, threads=options.threads, batch_size=options.batch_size
    )
    images = draw_images(options.images or 1)
    inputs = [to_input(image)[None] for image in images]
    name = session.get_inputs()[0].name
    return {
        "session by itself, batch 1": lambda: np.concatenate([session.run(None, {name: x})[0] for x in inputs]),
        f"ours as opened, batch {encoder.batch_size}": lambda: encoder.encode(images),
    }


def run_published(model: nn.Module, images: Images) -> Embeddings:
    """Run the published network, one image at a time."""
    weight = next(model.parameters())
    with torch.inference_mode():
        inputs = (torch.from_numpy(to_input(image))[None].to(weight.device, weight.dtype) for image in images)
        return np.concatenate([model(x).float().cpu().numpy() for x in inputs])


def run_ours(model: nn.Module, variant: str | None, hardware: Hardware, resized: Images, batch_size: int) -> Embeddings:
    """Run our network with one attention variant over the whole grid, and the tuned one in windows."""
    if variant is not None:
        use_attention(model, variant, windows=False)
    with torch.inference_mode():
        batches = (resized[first : first + batch_size] for first in range(0, len(resized), batch_size))
        inputs = (normalised(batch, hardware.device).to(hardware.dtype) for batch in batches)
        return np.concatenate([model(x).cpu().numpy() for x in inputs])


def measure(candidates: Mapping[str, Candidate], rounds: int) -> dict[str, Result]:
    """Run all in turn; candidates that fail are reported and left out."""
    results: dict[str, Embeddings] = {}
    for name, run in candidates.items():
        try:
            results[name] = run()
        except Exception as error:  # an attention variant that this device does not support
            print(f"{name}: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in results}
    for _ in range(rounds):
        for name in results:
            start, start_cpu = time.perf_counter(), time.process_time()
            candidates[name]()  # its result arrives in the CPU's memory, so no GPU work is pending
            seconds[name].append((time.perf_counter() - start, time.process_time() - start_cpu))
    return {
        name: Result(results[name], *(statistics.median(clock) for clock in zip(*times, strict=True)))
        for name, times in seconds.items()
    }


def show(results: Mapping[str, Result], n_images: int, tflop: float | None = None) -> None:
    """Print a line for each candidate with its ratio to the first, in elapsed and in processor time."""
    first = next(iter(results.values()))
    print(f"{'':40} s/image images/s ratio | CPU s ratio | worst error     rms | TFLOP/s")
    for name, found in results.items():
        error = (found.embeddings - first.embeddings) / first.embeddings.std()
        print(
            f"{name:40} {found.seconds / n_images:7.3f} {n_images / found.seconds:8.2f}"
            f" {first.seconds / found.seconds:5.2f} | {found.cpu_seconds / n_images:5.2f}"
            f" {first.cpu_seconds / found.cpu_seconds:5.2f} | {np.abs(error).max():11.2g}"
            f" {np.sqrt(np.square(error).mean()):7.2g} |",
            f"{n_images * tflop / found.seconds:7.2f}" if tflop else "",
        )


def show_hardware(device: torch.device) -> None:
    """Print the device's theoretical peak, and the peak memory."""
    if device.type == "cuda":
        name, peak_gib = torch.cuda.get_device_name(device), torch.cuda.max_memory_allocated(device) / 2**30
        print(f"{name}: bfloat16 peak {peak_tflops(name) or 'unknown'} TFLOP/s; peak memory {peak_gib:.1f} GiB")
    print(f"peak memory of the process {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GiB")


def draw_published(name: str) -> nn.Module:
    """Build the published encoder with random position terms; a new one has zeros."""
    torch.manual_seed(0)
    model = build_published(ARCHITECTURES[name].shape)
    for key, parameter in model.named_parameters():
        if "pos" in key:
            nn.init.normal_(parameter, std=0.1)
    return model.eval().requires_grad_(False)


def write_checkpoint(encoder: nn.Module, path: Path) -> Path:
    """Save the weights as in a checkpoint of a whole SAM, with some of its other tensors."""
    state = {f"image_encoder.{key}": value for key, value in encoder.state_dict().items()}
    state["prompt_encoder.no_mask_embed.weight"] = torch.zeros(1, 256)
    state["prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"] = torch.zeros(2, 128)
    torch.save(state, path)
    return path


def draw_images(n: int) -> list[NDArray[np.uint8]]:
    """Draw different images of 512 px made of coloured blocks."""
    blocks = np.random.default_rng(0).integers(0, 256, (n, 32, 32, 3), dtype=np.uint8)
    return [image.repeat(16, axis=0).repeat(16, axis=1) for image in blocks]


if __name__ == "__main__":
    main()
