"""An epoch from the cache against the same epoch with the encoder in the loop, and what 50 augmented epochs cost.

    python tests/bench/bench_epoch.py --encoder onnx:mobile_sam_encoder.onnx --dataset nuinsseg --source nuinsseg

Both train the same network on the same images in the same order, flipped and turned. One reads the embeddings from the
cache and replays the motion on them; the other encodes every image again as it is shown, the way a frozen encoder is
used without a cache. They take turns. Then, by measured sizes, what 50 augmented epochs of 665 images store and encode:
ours, and one float32 file for every augmented copy as the published code keeps them. Without arguments: the real
encoder and images in $NUCSEG_SHARED (default ../shared) where they are, else drawn ones.
"""

import argparse
import io
import tempfile
import time
from dataclasses import dataclass, replace

import numpy as np
import torch
from bench_embed import add_inputs, middle

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
from nucseg_pipeline.train.augmentation import Augmentation
from nucseg_pipeline.train.trainer import Trainer

EPOCHS, IMAGES = 50, 665
GIB = 1 << 30


@dataclass(frozen=True, kw_only=True)
class EncodedAnew(Augmentation):
    """An augmentation that moves the native image and encodes it, instead of replaying the motion on the embedding."""

    encoder: Encoder
    dataset: DataSet

    def moved(self, batch: Batch, motions: Motions) -> Batch:
        natives = {entry.id: entry for entry in self.dataset.entries if entry.id in batch.ids}
        turns = (None, *views_named("d4"))
        shown = []
        for one, element in zip(batch.ids, motions.elements, strict=True):
            image, turn = natives[one].read_image()[0], turns[element]
            shown.append(image if turn is None else turn.apply(image, one))
        embedding = torch.from_numpy(self.encoder.encode(shown)).to(batch.image.device)
        return replace(super().moved(replace(batch, embedding=None), motions), embedding=embedding)


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


def seconds(
    learner: Trainer, rows: EmbeddingDataset, validation: EmbeddingDataset, augmentation: Augmentation
) -> float:
    started = time.perf_counter()
    learner.learn(rows, validation, augmentation, lambda step, steps, loss: None)
    return time.perf_counter() - started


def measure_epochs(options: argparse.Namespace, cache: str) -> tuple[float, float]:
    """Print the epochs of both kinds; returns the bytes of a stored row, and of the published code's file."""
    places = {"dataset": options.dataset, "cache": cache, "device": options.device, "threads": options.threads}
    made = embed(
        EmbedConfig(
            **places, source=options.source, encoder=options.encoder, weights=options.weights, format=options.format,
            limit=options.images,
        ),
        lambda done, total, what: None,
    )  # fmt: skip
    config = TrainConfig(
        **places, model=options.model, fusion=options.fusion, width=options.width, batch_size=options.batch_size,
        mixed_precision=options.mixed_precision,
    )  # fmt: skip
    accelerator = open_accelerator(config)
    store = Store.open(made.location)
    embeddings = store.embeddings(made.key)
    ids = [info.id for info in store.table]
    rows, unguided = EmbeddingDataset(store, embeddings, ids), EmbeddingDataset(store, None, ids)
    validation = EmbeddingDataset(store, embeddings, ids[:1])
    geometry = Geometry.named("d4")
    pattern = position_pattern(torch.from_numpy(embeddings.read([info.row])) for info in store.table)
    cached = Augmentation(geometry, Replay(pattern).to(accelerator.device))
    encoder = open_encoder(options.encoder, weights=options.weights, device=options.device, threads=options.threads)
    dataset = open_source(options.dataset, options.source, "")
    anew = EncodedAnew(geometry, None, encoder=encoder, dataset=dataset)
    learner = Trainer(config, accelerator)
    seconds(learner, rows, validation, cached)  # warms up
    print(f"{options.model}, {options.fusion}, width {options.width}, batches of {options.batch_size}, "
          f"{len(ids)} images of {options.dataset}, {options.encoder}, {options.threads} threads")  # fmt: skip
    ratios = []
    for number in range(1, options.rounds + 1):
        from_cache = seconds(learner, rows, validation, cached)
        in_loop = seconds(learner, unguided, validation, anew)
        ratios.append(in_loop / from_cache)
        print(f"round {number}: an epoch from the cache {from_cache:.2f} s, with the encoder in it {in_loop:.2f} s")
    print(f"encoder in the loop / cache: {middle(ratios)}")
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
    print(f"\n{EPOCHS} augmented epochs of {IMAGES} images ({options.format}: {row_bytes:,.0f} bytes a row, measured)")
    print(f"{'':34}{'stored':>12}{'encoder runs':>14}")
    for name, n_bytes, runs in (
        ("ours, replayed", IMAGES * row_bytes, IMAGES),
        ("ours, exact views of all eight turns", 8 * IMAGES * row_bytes, 8 * IMAGES),
        ("a float32 file an augmented copy", copies * file_bytes, copies),
    ):
        print(f"{name:36}{n_bytes / GIB:>8.2f} GiB{runs:>12,}")
    print(f"a file a copy / ours: {copies * file_bytes / (IMAGES * row_bytes):.0f} times the bytes, "
          f"{copies / IMAGES:.0f} times the encoder")  # fmt: skip


if __name__ == "__main__":
    main()
