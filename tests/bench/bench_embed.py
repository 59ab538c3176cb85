"""Compare `embed`, from folder to store, with the encoder alone on the same images.

    python tests/bench/bench_embed.py --encoder onnx:mobile_sam_encoder.onnx --dataset nuinsseg --source nuinsseg

The encoder alone reads decoded images from memory, in the batches that `embed` uses. Both alternate over several
rounds, each time into a new store. Two times of `embed` are reported: from the first image to the last record, and the
whole stage, which also digests the images, prepares them with their masks, opens the encoder and writes the samples.
For the whole stage processor time is reported too, which depends less on other work on the machine. Without arguments
the real encoder and images in $NUCSEG_SHARED (default ../shared) are used if they exist, otherwise drawn images.
"""

import argparse
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from nucseg.encoders import Encoder, open_encoder
from nucseg.encoders.base import MIN_BATCH
from nucseg.errors import NucsegError
from nucseg_pipeline.config import EmbedConfig
from nucseg_pipeline.datasets.locate import open_source
from nucseg_pipeline.embed.stage import embed

SHARED = Path(os.environ.get("NUCSEG_SHARED", Path(__file__).resolve().parents[3] / "shared"))
ONNX = SHARED / "weights" / "mobile_sam_encoder.onnx"


def add_inputs(parser: argparse.ArgumentParser) -> None:
    """Add the options for images and encoder; the defaults are the real ones if they exist."""
    real = ONNX.is_file()
    parser.add_argument("--encoder", default=f"onnx:{ONNX}" if real else "random")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--dataset", default="nuinsseg" if real else "synthetic")
    parser.add_argument("--source", type=Path, default=SHARED / "data" / "nuinsseg" if real else None)
    parser.add_argument("--format", default="f16")
    parser.add_argument("--device", default="auto")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_inputs(parser)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


@dataclass(frozen=True)
class Round:
    """Seconds of one round, elapsed and of processor time."""

    alone: float
    encoding: float
    stage: float
    alone_cpu: float
    stage_cpu: float


def alone(encoder: Encoder, images: list) -> tuple[float, float]:
    """Elapsed and processor seconds of the encoder on images in memory."""
    size = max(encoder.batch_size, MIN_BATCH)
    started, cpu = time.perf_counter(), time.process_time()
    for first in range(0, len(images), size):
        encoder.encode(images[first : first + size])
    return time.perf_counter() - started, time.process_time() - cpu


def staged(options: argparse.Namespace, cache: Path) -> tuple[float, float, float]:
    """Seconds of stage one into a new store: from the first image to the last record, in total, of processor time."""
    config = EmbedConfig(
        dataset=options.dataset, source=options.source, encoder=options.encoder, weights=options.weights,
        format=options.format, device=options.device, precision=options.precision, batch_size=options.batch_size,
        threads=options.threads, limit=options.images, cache=str(cache),
    )  # fmt: skip
    started, cpu = time.perf_counter(), time.process_time()
    result = embed(config, lambda done, total, what: None)
    whole, cpu = time.perf_counter() - started, time.process_time() - cpu
    if result.n_encoded != options.images:
        raise NucsegError(f"{result.n_encoded} of {options.images} images were encoded")
    return result.seconds, whole, cpu


def rounds(options: argparse.Namespace) -> Iterator[Round]:
    encoder = open_encoder(
        options.encoder, weights=options.weights, device=options.device, precision=options.precision,
        threads=options.threads, batch_size=options.batch_size,
    )  # fmt: skip
    entries = open_source(options.dataset, options.source, "").entries[: options.images]
    images = [entry.read_image()[0] for entry in entries]
    encoder.encode(images[:MIN_BATCH])
    with tempfile.TemporaryDirectory() as folder:
        for number in range(options.rounds):
            cache = Path(folder) / str(number)
            (alone_s, alone_cpu), (encoding_s, stage_s, stage_cpu) = alone(encoder, images), staged(options, cache)
            yield Round(alone_s, encoding_s, stage_s, alone_cpu, stage_cpu)
            shutil.rmtree(cache)


def median_ratio(ratios: Sequence[float]) -> str:
    """The median of the rounds' ratios, and their range."""
    return f"median {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})"


def main() -> None:
    """Measure and print."""
    options = parse_arguments()
    print(f"{options.encoder}, {options.images} images of {options.dataset}, {options.threads} threads")
    header = (
        f"{'round':8}{'encoder alone':>16}{'embed: encoding':>18}{'embed: whole':>18}{'processor: alone, whole':>26}"
    )
    print(header)
    done = []
    for number, times in enumerate(rounds(options), 1):
        print(f"{number:<8}{times.alone:>14.2f} s{times.encoding:>16.2f} s{times.stage:>16.2f} s"
              f"{times.alone_cpu:>12.2f} s{times.stage_cpu:>8.2f} s")  # fmt: skip
        done.append(times)
    print(f"encoder alone / encoding: {median_ratio([times.alone / times.encoding for times in done])}")
    print(f"encoder alone / whole stage: {median_ratio([times.alone / times.stage for times in done])}")
    print(f"the same in processor time: {median_ratio([times.alone_cpu / times.stage_cpu for times in done])}")


if __name__ == "__main__":
    main()
