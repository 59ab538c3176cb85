"""Compare stage one in one process with several workers on this machine, into a new store each time.

    python tests/bench/bench_workers.py --encoder onnx:mobile_sam_encoder.onnx --dataset nuinsseg --source nuinsseg

Three setups alternate over several rounds: one process with all threads, workers that share the same threads, and one
process with as many threads as a worker has. The encoding is timed from the first image to the last record, with the
workers started and their encoders open. The whole stage, including the start of the workers, and the processor time of
all processes are reported too; processor time is more reliable on a shared machine. A task is a block of rows, so by
default there is a block of images for each worker.
"""

import argparse
import resource
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from nucseg.errors import NucsegError
from nucseg_cache import BLOCK_ROWS
from nucseg_pipeline.config import EmbedConfig
from nucseg_pipeline.embed.stage import embed

SIDE_PX = 256


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", default="random")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--dataset", default="drawn")
    parser.add_argument("--source", type=Path, help="default: noise")
    parser.add_argument("--images", type=int, help="default: a block of images per worker")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2, help="of all workers together")
    parser.add_argument("--device", default="cpu", help="cuda: each worker uses one GPU")
    parser.add_argument("--rounds", type=int, default=2)
    return parser.parse_args()


def draw(folder: Path, n_images: int) -> Path:
    """A folder of noisy images with a nucleus each."""
    random = np.random.default_rng(0)
    mask = np.zeros((SIDE_PX, SIDE_PX), np.uint8)
    mask[8:20, 8:20] = 1
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
        for i in range(n_images):
            content = random.integers(0, 256, (SIDE_PX, SIDE_PX, 3), np.uint8) if kind == "images" else mask
            Image.fromarray(content).save(folder / kind / f"{i:05}.png", compress_level=1)
    return folder


def stage(options: argparse.Namespace, cache: Path, n_images: int, workers: int | None, threads: int) -> list[float]:
    """Seconds of the encoding and of the whole stage, and processor seconds of the latter."""
    config = EmbedConfig(
        dataset=options.dataset, source=options.source, encoder=options.encoder, weights=options.weights,
        device=options.device, threads=threads, workers=workers, limit=n_images, cache=str(cache),
    )  # fmt: skip
    started, started_cpu = time.perf_counter(), processor_s()
    result = embed(config, lambda done, total, what: None)
    seconds, cpu_s = time.perf_counter() - started, processor_s() - started_cpu
    shutil.rmtree(cache)
    if result.n_encoded != n_images:
        raise NucsegError(f"{result.n_encoded} of {n_images} images were encoded")
    return [result.seconds, seconds, cpu_s]


def processor_s() -> float:
    """Processor seconds of this process and its finished child processes so far."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def main() -> None:
    """Measure and print."""
    options = parse_arguments()
    n_images = options.images or options.workers * BLOCK_ROWS
    share = max(1, options.threads // options.workers)
    setups = {
        f"one process, {options.threads} threads": (None, options.threads),
        f"{options.workers} workers, {share} threads each": (options.workers, share),
        f"one process, {share} threads": (None, share),
    }
    print(f"{options.encoder} on {options.device}, {n_images} images of {options.source or 'noise'}")
    seconds: dict[str, list[list[float]]] = {setup: [] for setup in setups}
    with tempfile.TemporaryDirectory() as folder:
        if options.source is None:
            options.source = draw(Path(folder) / "drawn", n_images)
        for number in range(options.rounds):
            for setup, (workers, threads) in setups.items():
                seconds[setup].append(stage(options, Path(folder) / "cache", n_images, workers, threads))
                encoding_s, whole_s, cpu_s = seconds[setup][-1]
                times = f"encoding {encoding_s:7.2f} s   whole stage {whole_s:7.2f} s   processor {cpu_s:7.2f} s"
                print(f"round {number + 1}  {setup:32}{times}", flush=True)
    medians = {setup: statistics.median(encoding for encoding, *_ in rounds) for setup, rounds in seconds.items()}
    parallel = list(medians)[1]
    for setup, median in medians.items():
        print(f"{setup:32}median {median:7.2f} s, {n_images / median:6.2f} images/s, {median / medians[parallel]:5.2f}")
    print(f"(last column: speed-up by {parallel})")


if __name__ == "__main__":
    main()
