"""Compare storage formats on networks trained with full embeddings: size, error, and Dice on their test images.

    python tests/bench/bench_formats.py runs/fold-0 runs/fold-1 runs/fold-2 runs/fold-3 runs/fold-4

Every run predicts its own test set, from the original embeddings and from those that each format would return; changes
are compared image by image, with intervals over groups (`nucseg.metrics`). Five and four bits are not formats of the
store: they show the limit. The error is mean (stored - original)^2 divided by the variance within channels. Without
runs nothing is measured. `nucseg ablate formats` trains on each format instead.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from nucseg.metrics import count_pixels, dice, paired_difference
from nucseg_cache.formats import FORMATS, Format, Int6
from nucseg_pipeline.loading.batch import Row
from nucseg_pipeline.loading.dataset import EmbeddingDataset
from nucseg_pipeline.modelling.inference import THRESHOLD, predict
from nucseg_pipeline.runs.run import Run


class FiveBits(Int6):
    name, largest = "5 bits", 15


class FourBits(Int6):
    name, largest = "4 bits", 7


STORED: tuple[Format, ...] = (FORMATS["f16"], FORMATS["i8"], FORMATS["i6"], FiveBits(), FourBits())


class AsStored:
    """Rows whose embeddings were encoded and decoded with a format."""

    in_memory = True  # `predict` then reads one batch after the other

    def __init__(self, rows: EmbeddingDataset, storage: Format) -> None:
        self.rows, self.storage = rows, storage

    def __len__(self) -> int:
        return len(self.rows)

    def __getitems__(self, indices: Sequence[int]) -> list[Row]:
        read = self.rows.__getitems__(indices)
        return [replace(row, block=None, embedding=stored(as_floats(row), self.storage)[0]) for row in read]


def as_floats(row: Row) -> NDArray[np.float32]:
    """The embedding of a row stored as floats, (256, 64, 64)."""
    return np.asarray(row.embedding, np.float32)


def stored(values: NDArray[np.float32], storage: Format) -> NDArray[np.floating]:
    """The embedding that a format returns, (1, 256, 64, 64)."""
    return storage.decode(storage.encode(values[None]))


def scores(run: Run, storage: Format, device: torch.device) -> Iterator[tuple[str, float]]:
    """Id and foreground Dice of each test image."""
    rows = AsStored(run.rows(run.split.test), storage)
    for prediction in predict(run.network().to(device), rows, device=device):
        sample = prediction.sample
        yield sample.id, dice(count_pixels(sample.instances > 0, prediction.probability >= THRESHOLD, sample.ignore))


def size_and_error(rows: EmbeddingDataset, storage: Format) -> tuple[float, float]:
    """MiB per image after compression, and the relative squared error, over some rows."""
    sizes, squared_error, variance = [], 0.0, 0.0
    for index in range(min(len(rows), 16)):
        values = as_floats(rows[index])
        encoded = storage.encode(values[None])
        codec = storage.compressor.to_dict()["configuration"]
        sizes.append(compressed_bytes(encoded.values, codec))
        squared_error += float(((stored(values, storage)[0].astype(np.float64) - values) ** 2).sum())
        variance += float(((values - values.mean((1, 2), keepdims=True, dtype=np.float64)) ** 2).sum())
    return float(np.mean(sizes)) / (1 << 20), squared_error / variance


def compressed_bytes(values: NDArray[np.generic], codec: dict) -> int:
    from numcodecs import Blosc

    shuffle = {"noshuffle": Blosc.NOSHUFFLE, "shuffle": Blosc.SHUFFLE, "bitshuffle": Blosc.BITSHUFFLE}[codec["shuffle"]]
    return len(Blosc(codec["cname"], codec["clevel"], shuffle, codec["blocksize"]).encode(np.ascontiguousarray(values)))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="*", help="finished runs on embeddings of format f16 or f32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    if not options.runs:
        print("no runs were given: nothing to measure")
        return
    torch.set_num_threads(options.threads)
    runs = [Run.open(path) for path in options.runs]
    groups = {info.id: info.group for run in runs for info in run.store.table}
    first = runs[0].rows(runs[0].split.test)
    print(f"| {len(runs)} runs | MiB per image | error | Dice | change in Dice |\n|---|---:|---:|---:|---:|")
    before: dict[str, float] = {}
    for storage in STORED:
        found = dict(pair for run in runs for pair in scores(run, storage, torch.device(options.device)))
        before = before or found
        change = paired_difference(before, found, {image_id: groups[image_id] for image_id in found}).difference
        mib, error = size_and_error(first, storage)
        print(f"| {storage.name} | {mib:.2f} | {error:.1e} | {np.mean(list(found.values())):.4f} | "
              f"{change.value:+.5f} ({change.low:+.5f} to {change.high:+.5f}), {len(found)} images |")  # fmt: skip


if __name__ == "__main__":
    main()
