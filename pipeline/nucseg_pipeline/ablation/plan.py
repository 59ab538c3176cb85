"""Which runs a table needs, what they wait for, and what stands in their way."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from nucseg.data.official import plain_name
from nucseg.data.splits import SplitRow, n_folds
from nucseg.encoders.opening import EncoderSpec
from nucseg.errors import ConfigError, NucsegError
from nucseg_cache import CacheError, Key, Store, StoreNotFound
from nucseg_pipeline.ablation.recipe import Ablation, Row
from nucseg_pipeline.config import AblateConfig, EmbedConfig, TrainConfig, store_location
from nucseg_pipeline.embed import embed
from nucseg_pipeline.inputs import divide, find_key, open_embeddings
from nucseg_pipeline.recipe import resolve
from nucseg_pipeline.run_folder import FREE_FIELDS
from nucseg_pipeline.synchronise import Progress

QUICK: Mapping[str, Any] = {
    "width": 8,
    "epochs": 10,
    "batch_size": 4,
    "learning_rate": 2e-3,
    "schedule": "cosine",
    "mixed_precision": "bf16",
}
"""What `--quick` trains with; batch and learning rate are for few steps."""

QUICK_IMAGES, QUICK_VALIDATION, MOST_QUICK_EPOCHS = 100, 30, 100
"""Training images an epoch and validation images that `--quick` looks at, and its epochs where there are few images."""


@dataclass(frozen=True)
class PlannedRow:
    """A row of the table for one data set."""

    row: Row
    dataset: str
    """Name of its store."""
    runs: tuple[TrainConfig, ...] = ()
    """One for each fold and seed; empty if the row cannot be run."""
    why_not: str = ""
    """Why it cannot be run; empty if it can."""
    n_encoded: int = 0
    """Images that went through the encoder for this row."""


def plan_row(ablation: Ablation, row: Row, dataset: str, config: AblateConfig, progress: Progress) -> PlannedRow:
    """Find out what a row needs for one data set, and embed what is missing.

    A row that cannot be run (no such data, no weights, random weights) says why, and stops no other.
    """
    stain = row.stain or config.stain or "none"
    planned = PlannedRow(row, dataset if stain == "none" else f"{dataset}@{stain}")
    try:
        settings = _training(ablation, row, planned.dataset, config)
        n_encoded = _embedded(settings, progress)
        return replace(planned, runs=_repeats(ablation, settings, config), n_encoded=n_encoded)
    except (NucsegError, CacheError, OSError) as error:
        return replace(planned, why_not=str(error))


def run_folder_name(training: TrainConfig, key: Key | None, contents: str) -> str:
    """Name a run after what decides its result, so that every table finds the runs that another one has made.

    What stands at its default is left out of the digest: new options of later versions change no name. `contents` is
    the digest of the images and masks (`contents_digest`): a run on other images is another run.
    """
    told = {
        field.name: str(value)
        for field in fields(training)
        if (value := getattr(training, field.name)) != field.default
        and field.name not in {*FREE_FIELDS, "fold", "seed"}
    }
    digest = hashlib.sha256(json.dumps([told, key.hash if key else "", contents], sort_keys=True).encode()).hexdigest()
    what = f"{training.dataset}-{training.model}-{training.fusion}"
    return f"{what}-{digest[:8]}-f{training.fold}-s{training.seed}"


def contents_digest(store: Store) -> str:
    """Hexadecimal digest of what a store holds to train on: images, masks, and how they were prepared."""
    rows = sorted((info.id, info.image_digest.hex(), info.mask_digest.hex()) for info in store.table if info.present)
    return hashlib.sha256(json.dumps([rows, sorted(store.preparation.items())]).encode()).hexdigest()


def _training(ablation: Ablation, row: Row, dataset: str, config: AblateConfig) -> TrainConfig:
    if row.only_with and not getattr(config, row.only_with, None):
        raise ConfigError(f"This row is of the encoder given with --{row.only_with}, and none was given.")
    own = row.settings.get("encoder")
    encoder = own or config.encoder or TrainConfig.encoder
    settings = {**ablation.train, **(QUICK if config.quick else {}), **row.settings}
    places = {"dataset": dataset, "cache": config.cache, "encoder": encoder, "device": config.device}
    weights = None if own else config.weights
    training = resolve(TrainConfig, {}, {**settings, **places, "weights": weights, "threads": config.threads})
    if training.fusion != "none" and EncoderSpec.parse(encoder, weights).architecture == "random":
        raise ConfigError(f"The encoder {encoder} has random weights: a score under its guidance would say nothing.")
    return training


def _embedded(training: TrainConfig, progress: Progress) -> int:
    """Embed what the row needs and the cache lacks; returns how many images were encoded."""
    if _is_complete(training):
        return 0
    asked = EmbedConfig(
        dataset=training.dataset,
        encoder="none" if training.fusion == "none" else training.encoder,
        weights=training.weights,
        cache=training.cache,
        device=training.device,
        threads=training.threads,
    )
    return embed(asked, progress).n_encoded


def _is_complete(training: TrainConfig) -> bool:
    """Whether the store has what the training reads; then neither data set nor encoder need be at hand."""
    try:
        store = Store.open(store_location(training.cache, training.dataset))
        present = [info.id for info in store.table if info.present]
        open_embeddings(store, find_key(store, training), present)
    except (StoreNotFound, LookupError, ConfigError, CacheError):
        return False
    return bool(present)


def _repeats(ablation: Ablation, training: TrainConfig, config: AblateConfig) -> tuple[TrainConfig, ...]:
    store = Store.open(store_location(training.cache, training.dataset))
    rows = [SplitRow(id=info.id, group=info.group, stratum=info.stratum) for info in store.table if info.present]
    most = n_folds(rows, dataset=plain_name(training.dataset), protocol=training.split)
    folds = config.folds or (1 if config.quick else ablation.folds)
    repeats = [
        replace(training, fold=fold, seed=seed)
        for fold in range(min(folds, most))
        for seed in config.seeds or ablation.seeds
    ]
    if config.quick:
        repeats = [_quick(one, store) for one in repeats]
    key, contents = find_key(store, training), contents_digest(store)
    return tuple(replace(one, run=config.runs / run_folder_name(one, key, contents)) for one in repeats)


def _quick(training: TrainConfig, store: Store) -> TrainConfig:
    """Bound what a run looks at: as many images in all, however many the data set has."""
    parts = divide(store, training)
    n_train, n_validation = len(parts.train), len(parts.validation)
    epochs = min(max(training.epochs, training.epochs * QUICK_IMAGES // n_train // 2), MOST_QUICK_EPOCHS)
    return replace(
        training,
        epochs=epochs,
        epoch_images=QUICK_IMAGES if n_train > QUICK_IMAGES else None,
        validation_images=QUICK_VALIDATION if n_validation > QUICK_VALIDATION else None,
    )


def all_runs(rows: Sequence[PlannedRow]) -> list[TrainConfig]:
    """Every run once, the first fold of all rows first: what is stopped early leaves rows that can be compared."""
    by_folder: dict[Path, TrainConfig] = {}
    for run in sorted((run for row in rows for run in row.runs), key=lambda run: (run.fold, run.seed)):
        by_folder.setdefault(run.folder, run)
    return list(by_folder.values())
