"""Students against the encoder they imitate and against ViT-B: time, size, and fidelity on given images; in one run.

    python tests/bench/bench_student.py --threads 2
    python tests/bench/bench_student.py --threads 2 --teacher mobile_sam_encoder.onnx --images cryonuseg \
        --students students/a/student.safetensors students/b/student.safetensors

Every encoder is opened as a user opens it and encodes the same images, one at a time: resizing, normalising and the
guard are in its time. All take turns, round by round. ViT-B is of full size; its weights are random. Without --images
drawn ones are encoded, on which fidelity says little. Images are those of a folder that `nucseg datasets` knows.
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
    pace = {name: statistics.median(times) for name, times in seconds.items()}
    print(f"{'':44} ms/image | of ViT-B's pace | of the teacher's | file, MB | error, cosine, centred cosine")
    for name in opened:
        told = fidelity(embedded.get("teacher"), embedded[name]) if name != VIT_B else ""
        teachers = f"{pace['teacher'] / pace[name]:8.1f}" if "teacher" in pace else " " * 8
        size = Path(name).stat().st_size / 1e6 if Path(name).is_file() else float("nan")
        times = f"{1e3 * pace[name]:8.1f} | {pace[VIT_B] / pace[name]:15.1f} | {teachers:>16}"
        print(f"{name[-44:]:44} {times} | {size:8.2f} | {told}")


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="auto")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--timed", type=int, default=4, help="images that are timed; all are compared")
    parser.add_argument("--teacher", type=Path, help="the encoder in ONNX that they imitate")
    parser.add_argument("--images", type=Path, help="folder of a data set")
    parser.add_argument("--dataset", default="cryonuseg", help="its layout")
    parser.add_argument("--students", type=Path, nargs="*", default=[], help="beside the one of the package")
    return parser.parse_args()


def read_images(options: argparse.Namespace) -> list[NDArray[np.uint8]]:
    """Native images, at most 30; drawn ones where none are given."""
    if options.images is None:
        return draw_images(4)
    return [entry.read_image()[0] for entry in open_dataset(options.dataset, options.images).entries[:30]]


def open_all(options: argparse.Namespace) -> dict[str, Encoder]:
    """Every contestant by its file, the teacher as `teacher`."""
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
    """How near embeddings are to the teacher's, by `nucseg.replay.fidelity`; the means are those of these images."""
    if true is None:
        return ""
    means, inside = channel_means(position_pattern([torch.from_numpy(true)])), torch.ones(64, 64, dtype=torch.bool)
    pairs = zip(torch.from_numpy(true), torch.from_numpy(own), strict=True)
    agreements = {str(i): agreement(t, r, means, inside) for i, (t, r) in enumerate(pairs)}
    return ", ".join(f"{one.value:.3f}" for one in measured([agreements]).values())


if __name__ == "__main__":
    main()
