"""Time and memory of a store: a row in each format, and a store of 100,000 rows.

    python tests/bench/bench_store.py --rows 100000

Rows are read on one thread with their digests checked: from the chunk files into a reused array, into new arrays, in
the stored format, and through zarr. The large store is simulated: every row has its own id, description and records,
but its chunk files are links to those of a few rows, and the digest of its content is correct in one row of fifty, the
rows that are read. Reading them measures the processor, not a disk. Each measurement on the large store runs in its own
process and reports elapsed seconds, processor seconds in brackets, and peak memory.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar
from unittest import mock

import numpy as np
from drawn_store import draw_embeddings, draw_samples

from nucseg_cache import BLOCK_ROWS, FORMATS, Embeddings, Key, SampleRow, Store
from nucseg_cache.arrays import grow_arrays, write_rows
from nucseg_cache.embedding_arrays import RECORD_BYTES
from nucseg_cache.layout import Layout
from nucseg_cache.rows import description_digest, pixel_digest
from nucseg_cache.samples import ARRAYS

KEY = Key({"architecture": "drawn", "format": "f16"})
N_DISTINCT = 8
"""Rows of the simulated store that have their own chunk files."""
READABLE_EVERY = 50
"""One in so many rows has the correct digest of its content."""
MIB = 1 << 20

T = TypeVar("T")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000, help="of the simulated store; 0 skips it")
    parser.add_argument("--images", type=int, default=24, help="to read in each format; 0 skips this")
    parser.add_argument("--store", help="a store with embeddings of format f16; default: drawn embeddings")
    parser.add_argument("--measure", choices=MEASURED, help=argparse.SUPPRESS)
    parser.add_argument("--at", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


# ---- a row in each format


def measure_formats(folder: Path, options: argparse.Namespace) -> None:
    rows = range(options.images)
    values = draw_embeddings(rows) if options.store is None else real_embeddings(options.store, len(rows))
    samples = draw_samples(rows, 256)
    store = Store.create(folder / "f.zarr", dataset="drawn", source="", preparation={"side_px": "256"}, rows=samples)
    kind = "drawn" if options.store is None else "real"
    print(f"{len(rows)} {kind} embeddings; milliseconds per row, minimum and median")
    print("format    MiB   write         read          into new      as stored     through zarr")
    for name in FORMATS:
        embeddings = store.embeddings(Key({**KEY.fields, "format": name}))
        columns = columns_of_format(embeddings, values)
        n_rows, n_bytes = embeddings.file_bytes()
        with mock.patch("nucseg_cache.reading.ChunkFiles.of", return_value=None):
            through_zarr = Store.open(store.location).embeddings(embeddings.key)
            columns.append(each(rows, partial(read_into, through_zarr, through_zarr.read([0]))))
        print(f"{name:<6} {n_bytes / n_rows / MIB:>6.3f}", *(f"{min(c):>6.2f} {np.median(c):>6.2f}" for c in columns))
    read = each(rows, lambda row: store.read_samples([row]))
    print(f"sample (image, masks): read {min(read):.2f} {np.median(read):.2f}")
    source, target = np.ones(MIB), np.empty(MIB)
    copied = each(rows, lambda row: np.copyto(target, source))
    print(f"for comparison, 8 MiB copied: {min(copied):.2f} {np.median(copied):.2f}")


def columns_of_format(embeddings: Embeddings, values: np.ndarray) -> list[list[float]]:
    rows = range(len(values))
    written = [milliseconds(lambda row=row: embeddings.write([row], values[row : row + 1])) for row in rows]
    room = embeddings.allocate(1)
    return [
        written,
        each(rows, partial(read_into, embeddings, embeddings.read([0]))),
        each(rows, lambda row: embeddings.read([row])),
        each(rows, lambda row: embeddings.read_stored([row], out=room)),
    ]


def read_into(embeddings: Embeddings, out: np.ndarray, row: int) -> None:
    embeddings.read([row], out=out)


def real_embeddings(location: str, n_rows: int) -> np.ndarray:
    store = Store.open(location)
    embeddings = store.embeddings(store.find({"format": "f16"}))
    return embeddings.read([info.row for info in embeddings.embedded_rows()[:n_rows]]).astype(np.float32)


def each(rows: Sequence[int], read: Callable[[int], object]) -> list[float]:
    for row in rows:
        read(row)
    return [milliseconds(lambda row=row: read(row)) for _ in range(5) for row in rows]


def milliseconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - start)


# ---- a large store


def simulate(path: Path, n_rows: int) -> None:
    """Create a store of so many rows, of which one in `READABLE_EVERY` can be read."""
    distinct = draw_samples(range(N_DISTINCT), 256)
    store = Store.create(path, dataset="drawn", source="", preparation={"side_px": "256"}, rows=distinct)
    store.embeddings(KEY).write(range(N_DISTINCT), draw_embeddings(range(N_DISTINCT)))
    samples = [drawn_row(distinct[row % N_DISTINCT], row) for row in range(n_rows)]
    view = path / "embeddings" / KEY.hash / "identity"
    for array in (*(path / "samples" / name for name in ("image", "instances", "ignore")), view / "values"):
        for row in range(N_DISTINCT, n_rows):
            (array / "c" / str(row)).symlink_to(str(row % N_DISTINCT))
    layout = Layout.open(path, "r+")
    arrays = grow_arrays(layout.root["samples"], ARRAYS, n_rows)
    records = [
        description_digest(sample.info(row)) + (pixel_digest(sample) if row % READABLE_EVERY == 0 else bytes(16))
        for row, sample in enumerate(samples)
    ]
    for name, column in columns_of(samples, records, np.asarray(arrays["stored"][:N_DISTINCT])).items():
        write_rows(arrays[name], 0, column)
    layout.with_attributes(rows=n_rows)
    simulate_embeddings(store, layout, samples)


def drawn_row(sample: SampleRow, row: int) -> SampleRow:
    digest = row.to_bytes(32, "big")
    return replace(
        sample,
        id=f"organ {row % 31}/image {row:06d}",
        group=f"slide {row // 20}",
        image_digest=digest,
        mask_digest=digest,
    )


def columns_of(samples: Sequence[SampleRow], records: Sequence[bytes], stored: np.ndarray) -> dict[str, np.ndarray]:
    def texts(name: str) -> np.ndarray:
        return np.array([getattr(sample, name) for sample in samples], object)

    def numbers(rows: Sequence[bytes]) -> np.ndarray:
        return np.frombuffer(b"".join(rows), np.uint8).reshape(len(rows), -1)

    return {
        "group": texts("group"),
        "stratum": texts("stratum"),
        "mpp": np.full(len(samples), samples[0].mpp),
        "size": np.full((len(samples), 2), samples[0].size, np.int32),
        "state": np.ones(len(samples), np.uint8),
        "image_digest": numbers([sample.image_digest for sample in samples]),
        "mask_digest": numbers([sample.mask_digest for sample in samples]),
        "stored": np.resize(stored, (len(samples), 3)),
        "record": numbers(records),
        "id": texts("id"),
    }


def simulate_embeddings(store: Store, layout: Layout, samples: Sequence[SampleRow]) -> None:
    embeddings = store.embeddings(KEY)
    values = embeddings.read_stored(range(N_DISTINCT))
    arrays = grow_arrays(layout.root[f"embeddings/{KEY.hash}/identity"], ("values", "stored", "record"), len(samples))

    records = np.zeros((len(samples), RECORD_BYTES), np.uint8)
    records[:, :32] = np.frombuffer(b"".join(sample.image_digest for sample in samples), np.uint8).reshape(-1, 32)
    for row in range(0, len(samples), READABLE_EVERY):
        place = row % N_DISTINCT
        records[row] = embeddings._record(samples[row].info(row), values[place : place + 1])
    write_rows(arrays["record"], 0, records)
    write_rows(arrays["stored"], 0, np.resize(np.asarray(arrays["stored"][:N_DISTINCT]), len(samples)))


Times = dict[str, tuple[float, float]]
"""Operation -> elapsed seconds, processor seconds."""


def seconds(work: Callable[[], T]) -> tuple[T, tuple[float, float]]:
    start, start_cpu = time.perf_counter(), time.process_time()
    result = work()
    return result, (time.perf_counter() - start, time.process_time() - start_cpu)


def open_and_missing(path: Path) -> Times:
    store, opening = seconds(lambda: Store.open(path))
    missing, asking = seconds(store.embeddings(KEY).missing)
    assert missing == []
    return {"open": opening, "missing": asking}


def random_reads(path: Path) -> Times:
    store = Store.open(path)
    embeddings, random = store.embeddings(KEY), np.random.default_rng(0)
    out = embeddings.read([0])
    rows = (random.integers(0, store.n_rows // READABLE_EVERY, 400) * READABLE_EVERY).tolist()
    _, reads = seconds(lambda: [embeddings.read([row], out=out) for row in rows])
    _, samples = seconds(lambda: [store.read_samples([row]) for row in rows])
    return {"400 embeddings": reads, "400 samples": samples}


def start_of_embed(path: Path) -> Times:
    """The queries of `nucseg embed` before it encodes, and for each block while it does."""
    store = Store.open(path, mode="r+")
    embeddings = store.embeddings(KEY)
    with store.exclusive():
        damaged, listing = seconds(store.damaged)
    missing, asking = seconds(lambda: embeddings.missing(sizes=True))
    _, adding = seconds(embeddings.file_bytes)
    values = embeddings.read([0])
    _, writing = seconds(lambda: embeddings.write([store.n_rows - 1], values))
    _, of_block = seconds(lambda: embeddings.missing(embeddings.blocks()[5], sizes=True))
    assert damaged == missing == []
    return {"damaged": listing, "missing with sizes": asking, "file_bytes": adding, "a row written": writing,
            "a block's missing": of_block}  # fmt: skip


def append_block(path: Path) -> Times:
    """Append a block as `nucseg embed` does for new images; the time must not grow with the store."""
    store = Store.open(path, mode="r+")
    more = draw_samples(range(10**6, 10**6 + BLOCK_ROWS), 256)
    small = Store.create(path.with_name("small.zarr"), dataset="d", source="", preparation={"side_px": "256"})
    return {
        "to an empty store": seconds(lambda: small.append(more))[1],
        "to this one": seconds(lambda: store.append(more))[1],
    }


def cache_info(path: Path) -> Times:
    def run() -> None:
        from nucseg_pipeline.cli import app

        with Path(os.devnull).open("w") as devnull, redirect_stdout(devnull):
            app(["cache", "info", str(path)], standalone_mode=False)

    return {"nucseg cache info": seconds(run)[1]}


MEASURED: dict[str, Callable[[Path], Times]] = {
    function.__name__: function
    for function in (open_and_missing, random_reads, cache_info, start_of_embed, append_block)
}


def measure(name: str, path: Path) -> None:
    times = ", ".join(f"{what} {elapsed:.3f} ({cpu:.3f})" for what, (elapsed, cpu) in MEASURED[name](path).items())
    # not getrusage, whose maximum includes the process that started this one
    lines = Path("/proc/self/status").read_text().splitlines()
    peak = int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) / 1024
    print(f"{name.replace('_', ' '):<17} {times} s; peak {peak:.0f} MiB", flush=True)


def main() -> None:
    options = parse_arguments()
    if options.measure:
        measure(options.measure, options.at)
        return
    with tempfile.TemporaryDirectory() as folder:
        if options.images:
            measure_formats(Path(folder), options)
        if options.rows:
            path = Path(folder) / "large.zarr"
            print(f"simulating {options.rows} rows: {milliseconds(lambda: simulate(path, options.rows)) / 1000:.0f} s")
            for name in MEASURED:
                subprocess.run([sys.executable, __file__, "--measure", name, "--at", str(path)], check=True)


if __name__ == "__main__":
    main()
