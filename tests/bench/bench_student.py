"""Compare students with their teacher and with ViT-B: time, size, and fidelity on given images, in one run.

    python tests/bench/bench_student.py --threads 2
    python tests/bench/bench_student.py --threads 2 --teacher mobile_sam_encoder.onnx --images cryonuseg \
        --students students/a/student.safetensors students/b/student.safetensors

Every encoder is opened as users do and encodes the same images one at a time, including resizing, normalising and
checks. All alternate over several rounds. ViT-B has its full size and random weights. --images is a folder of a data
set listed by `nucseg datasets`; without it drawn images are encoded, on which fidelity means little.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from bench_encoder import draw_images, draw_published, write_checkpoint
from numpy.typing import NDArray

from nucseg.data import open_dataset
from nucseg.encoders import Encoder, open_encoder
from nucseg.encoders.student import shipped_student
from nucseg.replay import position_pattern
from nucseg.replay.fidelity import agreement, channel_means, measured

VIT_B = "vit_b"


def main() -> None:
    """Measure and print."""
    options = parse_arguments()
    torch.set_num_threads(options.threads)
    images = read_images(options)
    opened = open_all(options)
    print(
        f"torch {torch.__version__}, {options.threads} threads, {len(images)} images, median of {options.rounds} rounds"
    )
    embedded = {name: encode(encoder, images[: 1 if name == VIT_B else None]) for name, encoder in opened.items()}
    seconds: dict[str, list[float]] = {name: [] for name in opened}
    for _ in range(options.rounds):
        for name, encoder in opened.items():
            timed = images[: options.timed]
            start = time.perf_counter()
            encode(encoder, timed[: 1 if name == VIT_B else None])
            seconds[name].append((time.perf_counter() - start) / (1 if name == VIT_B else len(timed)))
    median = {name: statistics.median(times) for name, times in seconds.items()}
    print(f"{'':44} ms/image | ViT-B / this    | teacher / this   | file, MB | error, cosine, centred cosine")
    for name in opened:
        scores = fidelity(embedded.get("teacher"), embedded[name]) if name != VIT_B else ""
        speedup = f"{median['teacher'] / median[name]:8.1f}" if "teacher" in median else " " * 8
        size = Path(name).stat().st_size / 1e6 if Path(name).is_file() else float("nan")
        times = f"{1e3 * median[name]:8.1f} | {median[VIT_B] / median[name]:15.1f} | {speedup:>16}"
        print(f"{name[-44:]:44} {times} | {size:8.2f} | {scores}")


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="auto")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--timed", type=int, default=4, help="number of images to time; all are compared")
    parser.add_argument("--teacher", type=Path, help="the teacher in ONNX")
    parser.add_argument("--images", type=Path, help="folder of a data set")
    parser.add_argument("--dataset", default="cryonuseg", help="layout of that folder")
    parser.add_argument("--students", type=Path, nargs="*", default=[], help="in addition to the shipped one")
    return parser.parse_args()


def read_images(options: argparse.Namespace) -> list[NDArray[np.uint8]]:
    """Native images, at most 30; drawn ones without --images."""
    if options.images is None:
        return draw_images(4)
    return [entry.read_image()[0] for entry in open_dataset(options.dataset, options.images).entries[:30]]


def open_all(options: argparse.Namespace) -> dict[str, Encoder]:
    """All encoders by their file, the teacher as `teacher`."""
    given = {"device": options.device, "threads": options.threads}
    students = {str(path): open_encoder(f"student:{path}", **given) for path in [shipped_student(), *options.students]}
    teacher = {"teacher": open_encoder(f"onnx:{options.teacher}", **given)} if options.teacher else {}
    with tempfile.TemporaryDirectory() as folder:
        weights = write_checkpoint(draw_published(VIT_B), Path(folder) / "sam.pth")
        return {**students, **teacher, VIT_B: open_encoder(VIT_B, weights=weights, **given)}


def encode(encoder: Encoder, images: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
    """One image at a time."""
    return np.concatenate([encoder.encode([image]) for image in images])


def fidelity(true: NDArray[np.float32] | None, own: NDArray[np.float32]) -> str:
    """Agreement with the teacher's embeddings by `nucseg.replay.fidelity`, with channel means over these images."""
    if true is None:
        return ""
    means, inside = channel_means(position_pattern([torch.from_numpy(true)])), torch.ones(64, 64, dtype=torch.bool)
    pairs = zip(torch.from_numpy(true), torch.from_numpy(own), strict=True)
    agreements = {str(i): agreement(t, r, means, inside) for i, (t, r) in enumerate(pairs)}
    return ", ".join(f"{interval.value:.3f}" for interval in measured([agreements]).values())


if __name__ == "__main__":
    main()
