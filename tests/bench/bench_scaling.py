"""What 5 thousand, 1 million and 100 million tiles take: a model of seconds, bytes, files and money, and its checks.

    python tests/bench/bench_scaling.py

The model is linear in the tiles; docs/pages/scaling.md says where that ends. Its points are measured here on a few
tiles (drawn ones where there are no real ones in $NUCSEG_SHARED), and checked on more of them: what the few foretell
stands beside what the many took. How long a store of many rows takes to open, and the memory for it, are checked on
simulated stores (bench_store.py). Rates of encoders and prices are options; the defaults say where they come from.
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
"""Arrays of one chunk file a block: of the samples, and of a key (formats with a scale have one more)."""
BATCH = 16
"""Rows that are written at once, as on a GPU."""
SAMPLE_FILES = 3
"""image, instances, ignore: a file a row."""


@dataclass(frozen=True)
class Points:
    """What was measured of one tile."""

    prepare_s: float
    """Digesting, decoding and preparing image and masks, by one process."""
    keep_s: float
    """What embedding adds to the encoder: compressing and writing, beside it as long as it is less than encoding."""
    sample_bytes: float
    row_bytes: float


@dataclass(frozen=True)
class Encoder:
    """How fast an encoder runs on a device, and what the device costs."""

    name: str
    images_per_s: float
    dollars_per_hour: float


ENCODERS = (
    Encoder("ViT-B, bfloat16, A100, published", 92.0, 2.0),
    Encoder("MobileSAM in ONNX, two CPU cores", 0.82, 0.10),
)
"""Segment-anything-fast's figure for an A100; docs/pages/benchmarks.md for two cores. Prices are those of a rental."""


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    real = ONNX.is_file()
    parser.add_argument("--dataset", default="nuinsseg" if real else "synthetic")
    parser.add_argument("--source", type=Path, default=SHARED / "data" / "nuinsseg" if real else None)
    parser.add_argument("--few", type=int, default=40 if real else 20, help="tiles that the model is made from")
    parser.add_argument("--many", type=int, default=120 if real else 60, help="tiles that it is checked on")
    parser.add_argument("--format", default="f16", choices=FORMATS)
    parser.add_argument("--devices", type=int, nargs="+", default=[1, 10])
    parser.add_argument("--images-per-s", type=float, help="of an encoder of yours on one device")
    parser.add_argument("--device-hour", type=float, default=2.0, help="its price in dollars")
    parser.add_argument("--gib-month", type=float, default=0.023, help="dollars; object stores' usual price")
    parser.add_argument("--thousand-puts", type=float, default=0.005, help="dollars; object stores' usual price")
    return parser.parse_args()


def measured(n_tiles: int, options: argparse.Namespace, cache: Path) -> tuple[Points, dict[str, float]]:
    """Embed tiles with the tiny encoder; what one of them took, and what all of them came to."""
    places = {"dataset": options.dataset, "source": options.source, "cache": str(cache), "limit": n_tiles,
              "format": options.format}  # fmt: skip

    def timed(encoder: str) -> float:
        started = time.perf_counter()
        embed(EmbedConfig(encoder=encoder, **places), lambda done, total, what: None)
        return time.perf_counter() - started

    prepare_s = timed("none")
    made = embed(EmbedConfig(encoder="random", **places), lambda done, total, what: None)
    files = [file for file in Path(made.location).rglob("*") if file.is_file() and file.name != "zarr.json"]
    sizes = {file: file.stat().st_size for file in files}
    of_samples = sum(size for file, size in sizes.items() if "samples" in file.relative_to(made.location).parts)
    store = Store.open(made.location)
    values = store.embeddings(made.key).read([0] * BATCH).astype(np.float32)
    keeping = Store.create(cache / "keeping.zarr", dataset="kept", source="", preparation=store.preparation,
                           rows=store.read_samples(range(n_tiles)))  # fmt: skip
    kept = keeping.embeddings(made.key)
    started = time.perf_counter()
    for first in range(0, n_tiles, BATCH):
        rows = range(first, min(first + BATCH, n_tiles))
        kept.write(rows, rounded(values[: len(rows)], options.format))
    keep_s = time.perf_counter() - started
    points = Points(prepare_s / n_tiles, keep_s / n_tiles, of_samples / n_tiles, kept.file_bytes()[1] / n_tiles)
    return points, {"seconds to prepare": prepare_s, "bytes": sum(sizes.values()), "files": len(files)}


def n_files(n_tiles: int, storage: str) -> int:
    """Chunk files of the samples and of one key."""
    columns = SAMPLE_COLUMNS + EMBEDDING_COLUMNS + FORMATS[storage].has_scale
    return n_tiles * (SAMPLE_FILES + 1) + math.ceil(n_tiles / BLOCK_ROWS) * columns


def checks(options: argparse.Namespace) -> Points:
    """Make the model from few tiles, and hold it against more."""
    with tempfile.TemporaryDirectory() as folder:
        measured(2, options, Path(folder) / "warm")
        points, _ = measured(options.few, options, Path(folder) / "few")
        _, found = measured(options.many, options, Path(folder) / "many")
    n = options.many
    foretold = {
        "seconds to prepare": n * points.prepare_s,
        "bytes": n * (points.sample_bytes + points.row_bytes),
        "files": n_files(n, options.format),
    }
    print(f"| {n} tiles, foretold from {options.few} | foretold | found | ratio |\n|---|---:|---:|---:|")
    for name, value in foretold.items():
        print(f"| {name} | {value:,.1f} | {found[name]:,.1f} | {found[name] / value:.2f} |")
    return points


def table(points: Points, options: argparse.Namespace) -> None:
    """Print what the model says of a study, a consortium and an archive."""
    own = options.images_per_s
    encoders = (*ENCODERS, Encoder("as given", own, options.device_hour)) if own else ENCODERS
    print("\n| tiles | encoder | devices | preparing, one process | encoding | stored | files | rent of devices "
          "| storage a month | writes |\n|---:|---|---:|---:|---:|---:|---:|---:|---:|---:|")  # fmt: skip
    for n_tiles in (5_000, 1_000_000, 100_000_000):
        for encoder in encoders:
            for n_devices in options.devices:
                print(line(n_tiles, encoder, n_devices, points, options))


def line(n_tiles: int, encoder: Encoder, n_devices: int, points: Points, options: argparse.Namespace) -> str:
    device_s = max(1 / encoder.images_per_s, points.keep_s)
    gib = n_tiles * (points.sample_bytes + FORMATS[options.format].row_bytes) / GIB
    files = n_files(n_tiles, options.format)
    rent = n_tiles * device_s / HOUR_S * encoder.dollars_per_hour
    return (
        f"| {n_tiles:,} | {encoder.name} | {n_devices} | {span(n_tiles * points.prepare_s)} | "
        f"{span(n_tiles * device_s / n_devices)} | {gib:,.0f} GiB | {files:,} | ${rent:,.0f} | "
        f"${gib * options.gib_month:,.0f} | ${files / 1000 * options.thousand_puts:,.0f} |"
    )


def span(seconds: float) -> str:
    """Seconds in the unit that a person would use."""
    for unit, length in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * length:
            return f"{seconds / length:,.1f} {unit}"
    return f"{seconds:.1f} s"


def main() -> None:
    """Measure, check and print."""
    options = parse_arguments()
    points = checks(options)
    print(f"\na tile: {points.prepare_s * 1e3:.1f} ms to prepare, {points.keep_s * 1e3:.1f} ms to compress and write, "
          f"{points.sample_bytes:,.0f} + {points.row_bytes:,.0f} bytes")  # fmt: skip
    table(points, options)


if __name__ == "__main__":
    main()
