"""What stage one adds to the encoder: `embed` from folder to store against the encoder alone on the same images.

    python tests/bench/bench_embed.py --encoder onnx:mobile_sam_encoder.onnx --dataset nuinsseg --source nuinsseg

The encoder alone gets the decoded images from memory, in the batches that `embed` takes. Both take turns, round after
round, each time into a new store. Of `embed` two times are told: from the first image to the last record, and the whole
stage, which also digests the images, prepares them with their masks, opens the encoder and writes the samples; of the
latter the processor time too, which other work on the machine stretches less. Without arguments: the real encoder and
images in $NUCSEG_SHARED (default ../shared) where they are, else drawn ones.
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
    """Options of what is encoded by what: the real images and encoder where they are."""
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
    """Elapsed and processor seconds of the encoder on images that lie in memory."""
    size = max(encoder.batch_size, MIN_BATCH)
    started, cpu = time.perf_counter(), time.process_time()
    for first in range(0, len(images), size):
        encoder.encode(images[first : first + size])
    return time.perf_counter() - started, time.process_time() - cpu


def staged(options: argparse.Namespace, cache: Path) -> tuple[float, float, float]:
    """Seconds of stage one into a new store: from the first image to the last record, in all, of processor time."""
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


def middle(ratios: Sequence[float]) -> str:
    """The median of the rounds' ratios, and their range."""
    return f"median {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})"


def main() -> None:
    """Measure and print."""
    options = parse_arguments()
    print(f"{options.encoder}, {options.images} images of {options.dataset}, {options.threads} threads")
    print(
        f"{'round':8}{'encoder alone':>16}{'embed: encoding':>18}{'embed: all of it':>18}{'processor: alone, all':>24}"
    )
    done = []
    for number, one in enumerate(rounds(options), 1):
        print(f"{number:<8}{one.alone:>14.2f} s{one.encoding:>16.2f} s{one.stage:>16.2f} s"
              f"{one.alone_cpu:>12.2f} s{one.stage_cpu:>8.2f} s")  # fmt: skip
        done.append(one)
    print(f"encoder alone / encoding: {middle([one.alone / one.encoding for one in done])}")
    print(f"encoder alone / all of it: {middle([one.alone / one.stage for one in done])}")
    print(f"the same in processor time: {middle([one.alone_cpu / one.stage_cpu for one in done])}")


if __name__ == "__main__":
    main()
