"""What loading costs a training: an epoch with its rows on the disk and in memory, and the parts of a batch.

    python tests/bench/bench_loading.py nuinsseg.zarr --images 84 --width 8 --batch-size 4 --threads 2

Waiting is the time between asking for a batch, or for rows to validate, and having it; its share is of the epoch,
validation included. The network is the one that `nucseg ablate --quick` trains. Without a store one is made of random
embeddings that compress as real ones do. What is read was read before: the figures are of the processor, not of a disk.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from drawn_store import draw_embeddings, draw_samples

from nucseg.replay import Geometry, Replay
from nucseg_cache import Embeddings, Key, Store
from nucseg_pipeline.ablate.plan import QUICK
from nucseg_pipeline.config import TrainConfig
from nucseg_pipeline.loading.batch import collate
from nucseg_pipeline.loading.batches import batches
from nucseg_pipeline.loading.dataset import EmbeddingDataset
from nucseg_pipeline.modelling import inference
from nucseg_pipeline.modelling.device import open_accelerator
from nucseg_pipeline.train import trainer as learner
from nucseg_pipeline.train.augmentation import Augmentation
from nucseg_pipeline.train.trainer import Trainer

T = TypeVar("T")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", nargs="?", help="a store with embeddings; by default one is made")
    parser.add_argument("--format", help="of the embeddings; default: the first there is, f16 in a store made here")
    parser.add_argument("--images", type=int, default=16, help="of the training part; a third of them validate")
    parser.add_argument("--width", type=int, default=QUICK["width"])
    parser.add_argument("--batch-size", type=int, default=QUICK["batch_size"])
    parser.add_argument("--fusion", default="multiscale")
    parser.add_argument("--epochs", type=int, default=1, help="after one that is not counted")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    return parser.parse_args()


class Waiting:
    """Seconds spent in asking for what is loaded."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def timed(self, load: Callable[..., Iterator[T]]) -> Callable[..., Iterator[T]]:
        """The same loading, its waiting noted."""

        def loaded(*args: Any, **options: Any) -> Iterator[T]:
            begun = time.perf_counter()
            coming = iter(load(*args, **options))
            while True:
                try:
                    one = next(coming)
                except StopIteration:
                    return
                finally:
                    self.seconds += time.perf_counter() - begun
                yield one
                begun = time.perf_counter()

        return loaded


def make_store(path: Path, format_name: str, n_images: int) -> Store:
    store = Store.create(
        path, dataset="drawn", source="", preparation={"side_px": "256"}, rows=draw_samples(range(n_images), 256)
    )
    embeddings = store.embeddings(Key({"architecture": "drawn", "format": format_name}))
    for row in range(n_images):
        embeddings.write([row], draw_embeddings([row]))
    return store


def open_embeddings(store: Store, format_name: str | None) -> Embeddings:
    key = next(key for key in store.keys() if format_name in (None, key.fields["format"]))  # noqa: SIM118
    return store.embeddings(key)


def measure_epochs(store: Store, embeddings: Embeddings, preload: str, options: argparse.Namespace) -> None:
    config = TrainConfig(
        dataset="synthetic",
        **{**QUICK, "width": options.width, "batch_size": options.batch_size},
        fusion=options.fusion,
        device=options.device,
        threads=options.threads,
    )
    learning = Trainer(config, open_accelerator(config))
    device = learning.accelerator.device
    ids = [info.id for info in embeddings.embedded_rows() if info.present]
    train, validation = ids[: options.images], ids[options.images :][: options.images // 3]
    begun = time.perf_counter()
    rows = EmbeddingDataset(store, embeddings, train, preload=preload, device=device)
    watched = EmbeddingDataset(store, embeddings, validation or train[:1], preload=preload, device=device)
    opened_s = time.perf_counter() - begun
    augmentation = Augmentation(Geometry.named("d4"), Replay())
    waiting = Waiting()
    originals = learner.prefetch, inference.stream
    learner.prefetch, inference.stream = map(waiting.timed, originals)
    try:
        learning.learn(rows, watched, augmentation, lambda *_: None)
        for epoch in range(options.epochs):
            waiting.seconds, begun = 0.0, time.perf_counter()
            learning.learn(rows, watched, augmentation, lambda *_: None)
            seconds = time.perf_counter() - begun
            print(
                f"preload {preload:<3}  opened in {opened_s:5.2f} s  epoch {epoch + 1}: {seconds:6.2f} s, "
                f"{1000 * waiting.seconds:7.1f} ms of it waiting: {100 * waiting.seconds / seconds:.2f} %",
                flush=True,
            )
    finally:
        learner.prefetch, inference.stream = originals


def measure_parts(store: Store, embeddings: Embeddings, options: argparse.Namespace) -> None:
    ids = [info.id for info in embeddings.embedded_rows() if info.present][: options.images]
    device = torch.device(options.device)
    rows = EmbeddingDataset(store, embeddings, ids, device=device)
    shares = [share for share in batches(range(len(ids)), options.batch_size) if len(share) == options.batch_size]
    read = [timed(lambda share=share: rows.__getitems__(share)) for share in shares * 3]
    apart = [[replace(row, block=None) for row in one] for one, _ in read]
    columns = {
        "read": [ms for _, ms in read],
        "collate": [timed(lambda one=one: collate(one))[1] for one, _ in read],
        "collate, rows from memory": [timed(lambda one=one: collate(one))[1] for one in apart],
        f"collate to {device}": [timed(lambda one=one: finished(collate(one, device)))[1] for one, _ in read],
    }
    for name, ms in columns.items():
        print(f"{name:<28} {np.median(ms):7.2f} ms a batch of {options.batch_size}, at best {min(ms):.2f}")


def finished(result: T) -> T:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return result


def timed(work: Callable[[], T]) -> tuple[T, float]:
    begun = time.perf_counter()
    result = work()
    return result, 1000 * (time.perf_counter() - begun)


def main() -> None:
    options = parse_arguments()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        if options.store:
            store = Store.open(options.store)
        else:
            store = make_store(Path(folder) / "drawn.zarr", options.format or "f16", options.images * 4 // 3)
        embeddings = open_embeddings(store, options.format)
        print(
            f"{store.location}, {embeddings.key.fields['format']}, width {options.width}, {options.fusion}, "
            f"{options.device}, {torch.get_num_threads()} threads"
        )
        for preload in ("off", "on"):
            measure_epochs(store, embeddings, preload, options)
        measure_parts(store, embeddings, options)


if __name__ == "__main__":
    main()
