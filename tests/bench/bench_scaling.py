"""Predict time, bytes, files and money for 5 thousand, 1 million and 100 million tiles, and check the prediction.

    python tests/bench/bench_scaling.py

The model is linear in the number of tiles; docs/pages/scaling.md describes its limits. Its parameters are measured on a
few tiles (drawn ones if there are none in $NUCSEG_SHARED) and checked on more of them: the prediction is printed next
to the measurement. The time to open a store of many rows, and the memory for it, are measured on simulated stores
(bench_store.py). Encoder speeds and prices are options.
"""

import argparse
import math
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from bench_embed import ONNX, SHARED

from nucseg_cache import BLOCK_ROWS, Store
from nucseg_cache.formats import FORMATS
from nucseg_pipeline.config import EmbedConfig
from nucseg_pipeline.embed.encode import rounded
from nucseg_pipeline.embed.stage import embed

GIB, HOUR_S = 1 << 30, 3600.0
SAMPLE_COLUMNS, EMBEDDING_COLUMNS = 10, 2
"""Arrays with one chunk file per block: of the samples, and of a key (formats with a scale have one more)."""
BATCH = 16
"""Rows written together, as on a GPU."""
SAMPLE_FILES = 3
"""image, instances, ignore: one file per row."""


@dataclass(frozen=True)
class TileCosts:
    """Measured costs per tile."""

    prepare_s: float
    """Digesting, decoding and preparing image and masks, in one process."""
    write_s: float
    """Compressing and writing an embedding, which overlaps with encoding."""
    sample_bytes: float
    row_bytes: float


@dataclass(frozen=True)
class Encoder:
    """Speed of an encoder on a device, and the price of the device."""

    name: str
    images_per_s: float
    dollars_per_hour: float


ENCODERS = (
    Encoder("ViT-B, bfloat16, A100, published", 92.0, 2.0),
    Encoder("MobileSAM in ONNX, two CPU cores", 0.82, 0.10),
)
"""Speeds from segment-anything-fast for an A100 and from docs/pages/benchmarks.md for two cores; rental prices."""


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    real = ONNX.is_file()
    parser.add_argument("--dataset", default="nuinsseg" if real else "synthetic")
    parser.add_argument("--source", type=Path, default=SHARED / "data" / "nuinsseg" if real else None)
    parser.add_argument("--few", type=int, default=40 if real else 20, help="tiles to fit the model")
    parser.add_argument("--many", type=int, default=120 if real else 60, help="tiles to check it")
    parser.add_argument("--format", default="f16", choices=FORMATS)
    parser.add_argument("--devices", type=int, nargs="+", default=[1, 10])
    parser.add_argument("--images-per-s", type=float, help="speed of your own encoder on one device")
    parser.add_argument("--device-hour", type=float, default=2.0, help="price of that device in dollars")
    parser.add_argument("--gib-month", type=float, default=0.023, help="dollars; usual price of object stores")
    parser.add_argument("--thousand-puts", type=float, default=0.005, help="dollars; usual price of object stores")
    return parser.parse_args()


def measured(n_tiles: int, options: argparse.Namespace, cache: Path) -> tuple[TileCosts, dict[str, float]]:
    """Embed tiles with the tiny encoder; return the costs per tile, and the measured totals."""
    common = {"dataset": options.dataset, "source": options.source, "cache": str(cache), "limit": n_tiles,
              "format": options.format}  # fmt: skip

    def timed(encoder: str) -> float:
        started = time.perf_counter()
        embed(EmbedConfig(encoder=encoder, **common), lambda done, total, what: None)
        return time.perf_counter() - started

    prepare_s = timed("none")
    embedded = embed(EmbedConfig(encoder="random", **common), lambda done, total, what: None)
    files = [file for file in Path(embedded.location).rglob("*") if file.is_file() and file.name != "zarr.json"]
    sizes = {file: file.stat().st_size for file in files}
    sample_bytes = sum(size for file, size in sizes.items() if "samples" in file.relative_to(embedded.location).parts)
    store = Store.open(embedded.location)
    values = store.embeddings(embedded.key).read([0] * BATCH).astype(np.float32)
    written = Store.create(cache / "written.zarr", dataset="written", source="", preparation=store.preparation,
                           rows=store.read_samples(range(n_tiles))).embeddings(embedded.key)  # fmt: skip
    started = time.perf_counter()
    for first in range(0, n_tiles, BATCH):
        rows = range(first, min(first + BATCH, n_tiles))
        written.write(rows, rounded(values[: len(rows)], options.format))
    write_s = time.perf_counter() - started
    costs = TileCosts(prepare_s / n_tiles, write_s / n_tiles, sample_bytes / n_tiles, written.file_bytes()[1] / n_tiles)
    return costs, {"seconds to prepare": prepare_s, "bytes": sum(sizes.values()), "files": len(files)}


def n_files(n_tiles: int, storage: str) -> int:
    """Chunk files of the samples and of one key."""
    columns = SAMPLE_COLUMNS + EMBEDDING_COLUMNS + FORMATS[storage].has_scale
    return n_tiles * (SAMPLE_FILES + 1) + math.ceil(n_tiles / BLOCK_ROWS) * columns


def fit_and_check(options: argparse.Namespace) -> TileCosts:
    """Fit the model on few tiles, and print its prediction for more of them next to the measurement."""
    with tempfile.TemporaryDirectory() as folder:
        measured(2, options, Path(folder) / "warm-up")
        costs, _ = measured(options.few, options, Path(folder) / "few")
        _, found = measured(options.many, options, Path(folder) / "many")
    n = options.many
    predicted = {
        "seconds to prepare": n * costs.prepare_s,
        "bytes": n * (costs.sample_bytes + costs.row_bytes),
        "files": n_files(n, options.format),
    }
    print(f"| {n} tiles, predicted from {options.few} | predicted | measured | ratio |\n|---|---:|---:|---:|")
    for name, value in predicted.items():
        print(f"| {name} | {value:,.1f} | {found[name]:,.1f} | {found[name] / value:.2f} |")
    return costs


def table(costs: TileCosts, options: argparse.Namespace) -> None:
    """Print the prediction for a study, a consortium and an archive."""
    own = options.images_per_s
    encoders = (*ENCODERS, Encoder("your own", own, options.device_hour)) if own else ENCODERS
    print("\n| tiles | encoder | devices | preparing, one process | encoding | stored | files | rent of devices "
          "| storage a month | writes |\n|---:|---|---:|---:|---:|---:|---:|---:|---:|---:|")  # fmt: skip
    for n_tiles in (5_000, 1_000_000, 100_000_000):
        for encoder in encoders:
            for n_devices in options.devices:
                print(line(n_tiles, encoder, n_devices, costs, options))


def line(n_tiles: int, encoder: Encoder, n_devices: int, costs: TileCosts, options: argparse.Namespace) -> str:
    device_s = max(1 / encoder.images_per_s, costs.write_s)
    gib = n_tiles * (costs.sample_bytes + FORMATS[options.format].row_bytes) / GIB
    files = n_files(n_tiles, options.format)
    rent = n_tiles * device_s / HOUR_S * encoder.dollars_per_hour
    return (
        f"| {n_tiles:,} | {encoder.name} | {n_devices} | {span(n_tiles * costs.prepare_s)} | "
        f"{span(n_tiles * device_s / n_devices)} | {gib:,.0f} GiB | {files:,} | ${rent:,.0f} | "
        f"${gib * options.gib_month:,.0f} | ${files / 1000 * options.thousand_puts:,.0f} |"
    )


def span(seconds: float) -> str:
    """Seconds in a readable unit."""
    for unit, length in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * length:
            return f"{seconds / length:,.1f} {unit}"
    return f"{seconds:.1f} s"


def main() -> None:
    """Measure, check and print."""
    options = parse_arguments()
    costs = fit_and_check(options)
    print(f"\nper tile: {costs.prepare_s * 1e3:.1f} ms to prepare, {costs.write_s * 1e3:.1f} ms to compress and write, "
          f"{costs.sample_bytes:,.0f} + {costs.row_bytes:,.0f} bytes")  # fmt: skip
    table(costs, options)


if __name__ == "__main__":
    main()
