"""What the trainings of a row read of a store, and bringing in what is not there yet."""

from __future__ import annotations

from dataclasses import replace

from nucseg.errors import ConfigError
from nucseg_cache import EmbeddingNotFound, StoreNotFound
from nucseg_pipeline.config import EmbedConfig, TrainConfig
from nucseg_pipeline.datasets.locate import SYNTHETIC, find_folder, layout_name
from nucseg_pipeline.datasets.stores import open_store
from nucseg_pipeline.embed.stage import NO_ENCODER, embed
from nucseg_pipeline.progress import Progress
from nucseg_pipeline.runs.selection import (
    ENOUGH_EXACT_IMAGES,
    find_key,
    needs_channel_mixing,
    open_embeddings,
    open_views,
    rows_with_all_views,
)


def synchronise_images(training: TrainConfig, progress: Progress) -> None:
    """Bring the images of a store to what its data set is now, where that is at hand; else the store must do.

    An `embed` that was interrupted has left some of the images: a table on these would look like one on all.
    """
    try:
        store = open_store(training.cache, training.dataset)
    except StoreNotFound:
        embed(_embedding(training, encoder=NO_ENCODER), progress)
        return
    is_drawn = layout_name(training.dataset) == SYNTHETIC
    if not is_drawn and find_folder(training.dataset, store.source) is not None:
        embed(_embedding(training, encoder=NO_ENCODER), progress)


def embed_what_is_missing(training: TrainConfig, progress: Progress) -> int:
    """Embed what a training reads and the store has not, images and exact views; how many embeddings were made.

    No encoder need be at hand for what is there.
    """
    needed = [_embedding(training)]
    if training.views != "identity":
        needed.append(replace(needed[0], views=training.views))
    elif needs_channel_mixing(training):
        needed.append(replace(needed[0], views="d4", view_images=ENOUGH_EXACT_IMAGES))
    return sum(0 if _is_there(training, one.views) else embed(one, progress).n_encoded for one in needed)


def _embedding(training: TrainConfig, encoder: str | None = None) -> EmbedConfig:
    """What stage one is asked for, so that a training has what it reads."""
    return EmbedConfig(
        dataset=training.dataset,
        encoder=encoder or training.encoder,
        weights=None if encoder else training.weights,
        precision=training.precision,
        format=training.format or EmbedConfig.format,
        cache=training.cache,
        device=training.device,
        threads=training.threads,
    )


def _is_there(training: TrainConfig, views: str) -> bool:
    store = open_store(training.cache, training.dataset)
    present = tuple(info.id for info in store.table if info.present)
    try:
        key = find_key(store, training)
        open_embeddings(store, key, present)
        if key is not None and views not in ("identity", training.views):  # not read, but learned from
            return len(rows_with_all_views(store, key, present)) >= min(ENOUGH_EXACT_IMAGES, len(present))
        if views != "identity":
            open_views(store, key, training, present)
    except (ConfigError, EmbeddingNotFound):
        return False
    return True
