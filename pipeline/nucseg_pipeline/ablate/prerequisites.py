"""Embed what the trainings of a row read and the store does not have yet."""

from __future__ import annotations

from dataclasses import replace

from nucseg.errors import ConfigError
from nucseg_cache import EmbeddingNotFound, StoreNotFound
from nucseg_pipeline.config import EmbedConfig, TrainConfig
from nucseg_pipeline.datasets.locate import SYNTHETIC, find_folder, layout_name
from nucseg_pipeline.datasets.stores import open_store
from nucseg_pipeline.embed.stage import NO_ENCODER, embed
from nucseg_pipeline.progress import Progress
from nucseg_pipeline.runs.selection import ENOUGH_EXACT_IMAGES, Selection, needs_channel_mixing, rows_with_all_views


def sync_images(training: TrainConfig, progress: Progress) -> None:
    """Bring the images of a store up to date with its data set, if that is available; else use the store as it is.

    An interrupted `embed` leaves a part of the images: a table on these would look like one on all of them.
    """
    try:
        store = open_store(training.cache, training.dataset)
    except StoreNotFound:
        embed(_embed_config(training, encoder=NO_ENCODER), progress)
        return
    is_drawn = layout_name(training.dataset) == SYNTHETIC
    if not is_drawn and find_folder(training.dataset, store.source) is not None:
        embed(_embed_config(training, encoder=NO_ENCODER), progress)


def embed_missing(training: TrainConfig, progress: Progress) -> int:
    """Embed what a training reads and the store lacks, images and exact views; return the number of new embeddings.

    The encoder is needed only if something is missing.
    """
    needed = [_embed_config(training)]
    if training.views != "identity":
        needed.append(replace(needed[0], views=training.views))
    elif needs_channel_mixing(training):
        needed.append(replace(needed[0], views="d4", view_images=ENOUGH_EXACT_IMAGES))
    return sum(0 if _is_cached(training, config.views) else embed(config, progress).n_encoded for config in needed)


def _embed_config(training: TrainConfig, encoder: str | None = None) -> EmbedConfig:
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


def _is_cached(training: TrainConfig, views: str) -> bool:
    try:
        selection = Selection.open(training)
        present = selection.present_ids
        selection.embeddings(present)
        if selection.key is not None and views not in ("identity", training.views):  # mixing is learned from them
            rows = rows_with_all_views(selection.store, selection.key, present)
            return len(rows) >= min(ENOUGH_EXACT_IMAGES, len(present))
        if views != "identity":
            selection.views(present)
    except (ConfigError, EmbeddingNotFound):
        return False
    return True
