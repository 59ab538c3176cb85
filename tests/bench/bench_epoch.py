"""Compare an epoch from the cache with one that has the encoder in the loop, and the cost of 50 augmented epochs.

    python tests/bench/bench_epoch.py --encoder onnx:mobile_sam_encoder.onnx --dataset nuinsseg --source nuinsseg

Both train the same network on the same images in the same order, with D4 augmentation. The first reads the embeddings
from the cache and replays the motion on them; the second encodes every augmented image again, as a frozen encoder
without a cache does. They alternate. Then, from measured sizes, the storage and the encoder runs of 50 augmented epochs
of 665 images: for nucseg, and for one float32 file per augmented copy as in the published code. Without arguments the
real encoder and images in $NUCSEG_SHARED (default ../shared) are used if they exist, otherwise drawn images.
"""

import argparse
import io
import tempfile
import time
from dataclasses import dataclass, replace

import numpy as np
import torch
from bench_embed import add_inputs, median_ratio

from nucseg.data import DataSet
from nucseg.encoders import Encoder, open_encoder
from nucseg.replay import Geometry, Motions, Replay, position_pattern
from nucseg.views import views_named
from nucseg_cache import Store
from nucseg_pipeline.config import EmbedConfig, TrainConfig
from nucseg_pipeline.datasets.locate import open_source
from nucseg_pipeline.embed.stage import embed
from nucseg_pipeline.loading.batch import Batch
from nucseg_pipeline.loading.dataset import EmbeddingDataset
from nucseg_pipeline.modelling.device import open_accelerator
from nucseg_pipeline.train.augmentation import Augmentation, AugmentedDataset
from nucseg_pipeline.train.segmentation import SegmentationTrainer

EPOCHS, IMAGES = 50, 665
GIB = 1 << 30


@dataclass(frozen=True, kw_only=True)
class EncoderInLoop(Augmentation):
    """An augmentation that encodes the moved native image, instead of replaying the motion on its embedding."""

    encoder: Encoder
    dataset: DataSet

    def apply(self, batch: Batch, motions: Motions) -> Batch:
        natives = {entry.id: entry for entry in self.dataset.entries if entry.id in batch.ids}
        views = (None, *views_named("d4"))
        images = []
        for image_id, element in zip(batch.ids, motions.elements, strict=True):
            image, view = natives[image_id].read_image()[0], views[element]
            images.append(image if view is None else view.apply(image, image_id))
        embedding = torch.from_numpy(self.encoder.encode(images)).to(batch.image.device)
        return replace(super().apply(replace(batch, embedding=None), motions), embedding=embedding)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_inputs(parser)
    parser.add_argument("--model", default="eunet3plus")
    parser.add_argument("--fusion", default="multiscale")
    parser.add_argument("--width", type=int, default=8, help="the papers take 32")
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--mixed-precision", default="bf16")
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


def seconds(trainer: SegmentationTrainer, rows: EmbeddingDataset, augmentation: Augmentation) -> float:
    started = time.perf_counter()
    trainer.train_epoch(AugmentedDataset(rows, augmentation, seed=0), lambda event: None)
    return time.perf_counter() - started


def measure_epochs(options: argparse.Namespace, cache: str) -> tuple[float, float]:
    """Print the time of both kinds of epochs; return the bytes of a stored row, and of the published code's file."""
    common = {"dataset": options.dataset, "cache": cache, "device": options.device, "threads": options.threads}
    embedded = embed(
        EmbedConfig(
            **common, source=options.source, encoder=options.encoder, weights=options.weights, format=options.format,
            limit=options.images,
        ),
        lambda done, total, what: None,
    )  # fmt: skip
    config = TrainConfig(
        **common, model=options.model, fusion=options.fusion, width=options.width, batch_size=options.batch_size,
        mixed_precision=options.mixed_precision,
    )  # fmt: skip
    accelerator = open_accelerator(config)
    store = Store.open(embedded.location)
    embeddings = store.embeddings(embedded.key)
    ids = [info.id for info in store.table]
    rows, unguided = EmbeddingDataset(store, embeddings, ids), EmbeddingDataset(store, None, ids)
    validation = EmbeddingDataset(store, embeddings, ids[:1])
    geometry = Geometry.named("d4")
    pattern = position_pattern(torch.from_numpy(embeddings.read([info.row])) for info in store.table)
    cached = Augmentation(geometry, Replay(pattern).to(accelerator.device))
    encoder = open_encoder(options.encoder, weights=options.weights, device=options.device, threads=options.threads)
    dataset = open_source(options.dataset, options.source, "")
    in_loop = EncoderInLoop(geometry, None, encoder=encoder, dataset=dataset)
    trainer = SegmentationTrainer(config, accelerator, validation)
    seconds(trainer, rows, cached)  # warm-up
    print(f"{options.model}, {options.fusion}, width {options.width}, batches of {options.batch_size}, "
          f"{len(ids)} images of {options.dataset}, {options.encoder}, {options.threads} threads")  # fmt: skip
    ratios = []
    for number in range(1, options.rounds + 1):
        cache_s = seconds(trainer, rows, cached)
        loop_s = seconds(trainer, unguided, in_loop)
        ratios.append(loop_s / cache_s)
        print(f"round {number}: an epoch from the cache {cache_s:.2f} s, with the encoder in the loop {loop_s:.2f} s")
    print(f"encoder in the loop / cache: {median_ratio(ratios)}")
    n_rows, n_bytes = embeddings.file_bytes()
    published = io.BytesIO()
    torch.save(torch.from_numpy(embeddings.read([0])[0].astype(np.float32)), published)
    return n_bytes / n_rows, float(published.tell())


def main() -> None:
    """Measure and print."""
    options = parse_arguments()
    with tempfile.TemporaryDirectory() as cache:
        row_bytes, file_bytes = measure_epochs(options, cache)
    copies = EPOCHS * IMAGES
    print(
        f"\n{EPOCHS} augmented epochs of {IMAGES} images ({options.format}: {row_bytes:,.0f} bytes per row, measured)"
    )
    print(f"{'':34}{'stored':>12}{'encoder runs':>14}")
    for name, n_bytes, runs in (
        ("nucseg, replayed", IMAGES * row_bytes, IMAGES),
        ("nucseg, exact views of D4", 8 * IMAGES * row_bytes, 8 * IMAGES),
        ("a float32 file per augmented copy", copies * file_bytes, copies),
    ):
        print(f"{name:36}{n_bytes / GIB:>8.2f} GiB{runs:>12,}")
    print(f"a file per copy / nucseg: {copies * file_bytes / (IMAGES * row_bytes):.0f} times the bytes, "
          f"{copies / IMAGES:.0f} times the encoder")  # fmt: skip


if __name__ == "__main__":
    main()
