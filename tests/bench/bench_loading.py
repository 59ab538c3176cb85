"""Time spent on loading in training: an epoch with its rows on disk and in memory, and the steps of making a batch.

    python tests/bench/bench_loading.py nuinsseg.zarr --images 84 --width 8 --batch-size 4 --threads 2

Waiting is the time between requesting a batch, or validation rows, and receiving it; its share refers to the epoch
including validation. The network is the one that `nucseg ablate --quick` trains. Without a store, one is created from
random embeddings that compress like real ones. Data is read before it is timed, so the times measure the processor, not
a disk.
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
from nucseg_pipeline.train import trainer
from nucseg_pipeline.train.augmentation import Augmentation, AugmentedDataset
from nucseg_pipeline.train.segmentation import SegmentationTrainer

T = TypeVar("T")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", nargs="?", help="a store with embeddings; default: create one")
    parser.add_argument("--format", help="of the embeddings; default: the first one in the store, f16 in a created one")
    parser.add_argument("--images", type=int, default=16, help="for training; a third as many for validation")
    parser.add_argument("--width", type=int, default=QUICK["width"])
    parser.add_argument("--batch-size", type=int, default=QUICK["batch_size"])
    parser.add_argument("--fusion", default="multiscale")
    parser.add_argument("--epochs", type=int, default=1, help="after a warm-up epoch")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    return parser.parse_args()


class Waiting:
    """Seconds spent waiting for loaded data."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def timed(self, load: Callable[..., Iterator[T]]) -> Callable[..., Iterator[T]]:
        """Wrap a function that loads data, to add up the time spent in it."""

        def loaded(*args: Any, **options: Any) -> Iterator[T]:
            start = time.perf_counter()
            batches = iter(load(*args, **options))
            while True:
                try:
                    batch = next(batches)
                except StopIteration:
                    return
                finally:
                    self.seconds += time.perf_counter() - start
                yield batch
                start = time.perf_counter()

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
    accelerator = open_accelerator(config)
    device = accelerator.device
    ids = [info.id for info in embeddings.embedded_rows() if info.present]
    train_ids, validation_ids = ids[: options.images], ids[options.images :][: options.images // 3]
    start = time.perf_counter()
    train = EmbeddingDataset(store, embeddings, train_ids, preload=preload, device=device)
    validation = EmbeddingDataset(store, embeddings, validation_ids or train_ids[:1], preload=preload, device=device)
    opened_s = time.perf_counter() - start
    model_trainer = SegmentationTrainer(config, accelerator, validation)
    augmented = AugmentedDataset(train, Augmentation(Geometry.named("d4"), Replay()), seed=0)
    waiting = Waiting()
    originals = trainer.prefetch, inference.stream
    trainer.prefetch, inference.stream = map(waiting.timed, originals)
    try:
        model_trainer.train_epoch(augmented, lambda event: None)
        for epoch in range(options.epochs):
            waiting.seconds, start = 0.0, time.perf_counter()
            model_trainer.train_epoch(augmented, lambda event: None)
            seconds = time.perf_counter() - start
            print(
                f"preload {preload:<3}  opened in {opened_s:5.2f} s  epoch {epoch + 1}: {seconds:6.2f} s, "
                f"{1000 * waiting.seconds:7.1f} ms of it waiting: {100 * waiting.seconds / seconds:.2f} %",
                flush=True,
            )
    finally:
        trainer.prefetch, inference.stream = originals


def measure_parts(store: Store, embeddings: Embeddings, options: argparse.Namespace) -> None:
    ids = [info.id for info in embeddings.embedded_rows() if info.present][: options.images]
    device = torch.device(options.device)
    rows = EmbeddingDataset(store, embeddings, ids, device=device)
    shares = [share for share in batches(range(len(ids)), options.batch_size) if len(share) == options.batch_size]
    read = [timed(lambda share=share: rows.__getitems__(share)) for share in shares * 3]
    separate = [[replace(row, block=None) for row in loaded] for loaded, _ in read]
    columns = {
        "read": [ms for _, ms in read],
        "collate": [timed(lambda rows=loaded: collate(rows))[1] for loaded, _ in read],
        "collate, rows from memory": [timed(lambda rows=loaded: collate(rows))[1] for loaded in separate],
        f"collate to {device}": [
            timed(lambda rows=loaded: synchronised(collate(rows, device)))[1] for loaded, _ in read
        ],
    }
    for name, ms in columns.items():
        print(f"{name:<28} {np.median(ms):7.2f} ms per batch of {options.batch_size}, at best {min(ms):.2f}")


def synchronised(result: T) -> T:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return result


def timed(work: Callable[[], T]) -> tuple[T, float]:
    start = time.perf_counter()
    result = work()
    return result, 1000 * (time.perf_counter() - start)


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
