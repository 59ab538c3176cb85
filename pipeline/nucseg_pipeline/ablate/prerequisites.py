"""Embed what the trainings of a row read and the store does not have yet."""

from __future__ import annotations

from dataclasses import replace

from nucseg.encoders import check_encoder
from nucseg.errors import ConfigError
from nucseg_cache import EmbeddingNotFound, StoreNotFound
from nucseg_pipeline.config import EmbedConfig, TrainConfig
from nucseg_pipeline.datasets.locate import SYNTHETIC, find_folder, layout_name
from nucseg_pipeline.datasets.stores import open_store
from nucseg_pipeline.embed.stage import NO_ENCODER, embed
from nucseg_pipeline.progress import Progress
from nucseg_pipeline.runs.selection import (
    ENOUGH_EXACT_IMAGES,
    Selection,
    embedding_of,
    needs_channel_mixing,
    rows_with_all_views,
)


def check_weights(training: TrainConfig) -> None:
    """Raise EncoderError if a training needs an encoder, because something is not cached, and its file is missing."""
    if training.fusion != "none" and not all(_is_cached(training, config.views) for config in _needed(training)):
        check_encoder(training.encoder, weights=training.weights, precision=training.precision)


def sync_images(training: TrainConfig, progress: Progress) -> None:
    """Bring the images of a store up to date with its data set, if that is available; else use the store as it is.

    An interrupted `embed` leaves a part of the images: a table on these would look like one on all of them.
    """
    try:
        store = open_store(training.cache, training.dataset)
    except StoreNotFound:
        embed(replace(embedding_of(training), encoder=NO_ENCODER, weights=None), progress)
        return
    is_drawn = layout_name(training.dataset) == SYNTHETIC
    if not is_drawn and find_folder(training.dataset, store.source) is not None:
        embed(replace(embedding_of(training), encoder=NO_ENCODER, weights=None), progress)


def embed_missing(training: TrainConfig, progress: Progress) -> int:
    """Embed what a training reads and the store lacks, images and exact views; return the number of new embeddings.

    The encoder is needed only if something is missing.
    """
    needed = _needed(training)
    return sum(0 if _is_cached(training, config.views) else embed(config, progress).n_encoded for config in needed)


def _needed(training: TrainConfig) -> list[EmbedConfig]:
    """What makes the embeddings that a training reads."""
    images = embedding_of(training)
    if training.views != "identity":
        return [images, replace(images, views=training.views)]
    if needs_channel_mixing(training):
        return [images, replace(images, views="d4", view_images=ENOUGH_EXACT_IMAGES)]
    return [images]


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
    except (ConfigError, EmbeddingNotFound, StoreNotFound):
        return False
    return True
