"""Plan the runs of a table: embed what they read, name their folders, and find out which rows cannot be run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from nucseg.data.official_splits import plain_name, stain_of
from nucseg.data.splits import n_folds
from nucseg.encoders.factory import EncoderSpec
from nucseg.errors import ConfigError, NucsegError
from nucseg_cache import CacheError, Key, Store
from nucseg_pipeline.ablate.prerequisites import check_weights, embed_missing, sync_images
from nucseg_pipeline.ablate.table_recipe import Ablation, Row
from nucseg_pipeline.config import AblateConfig, TrainConfig
from nucseg_pipeline.config.recipe import resolve
from nucseg_pipeline.datasets.stores import open_store
from nucseg_pipeline.modelling.model import build_network
from nucseg_pipeline.progress import Progress
from nucseg_pipeline.runs.digests import FREE_FIELDS
from nucseg_pipeline.runs.selection import Selection, make_split, split_rows

QUICK: Mapping[str, Any] = {
    "width": 8,
    "epochs": 10,
    "batch_size": 4,
    "learning_rate": 2e-3,
    "schedule": "cosine",
    "mixed_precision": "bf16",
}
"""Settings of `--quick`, unless a row overrides them; batch size and learning rate suit few training steps."""

QUICK_IMAGES, QUICK_VALIDATION, MAX_QUICK_EPOCHS = 100, 30, 100
"""With `--quick`: training images per epoch, validation images, and most epochs where there are few images."""


@dataclass(frozen=True)
class PlannedRow:
    """A row of the table for one data set, with its runs."""

    row: Row
    dataset: str
    training: TrainConfig | None = None
    """Settings that its runs share; None if the row cannot be run."""
    runs: tuple[TrainConfig, ...] = ()
    """One for each fold and seed; empty if the row cannot be run."""
    why_not: str = ""
    n_encoded: int = 0
    n_parameters: int = 0


def plan_rows(
    ablation: Ablation,
    dataset: str,
    config: AblateConfig,
    progress: Progress,
    on_plan: Callable[[PlannedRow], None] = lambda row: None,
) -> tuple[PlannedRow, ...]:
    """Find out what every row needs for one data set, embed what is missing, and name the runs.

    A row that cannot be run (no such data, no weights, random weights, no such network, other test images than the
    rows before it) states the reason and does not stop the others. Runs are planned once everything is embedded, so
    that all rows see the same store. `on_plan` is called with each row, in order, at the end.
    """
    synced: set[str] = set()
    drafts = [_draft(ablation, row, dataset, config, progress, synced) for row in ablation.rows]
    rows: list[PlannedRow] = []
    for draft in drafts:
        row = _attempt(draft, partial(_with_runs, ablation, draft, config, rows))
        rows.append(row)
        on_plan(row)
    return tuple(rows)


def run_folder_name(training: TrainConfig, key: Key | None, contents: str) -> str:
    """Name a run after everything that affects its result, so that tables share runs.

    Settings at their default are left out of the digest, so that options of later versions do not change names.
    `contents` is the digest of images and masks (`contents_digest`): a run on other images has another name.
    """
    settings = {
        field.name: str(value)
        for field in fields(training)
        if (value := getattr(training, field.name)) != field.default
        and field.name not in {*FREE_FIELDS, "fold", "seed"}
    }
    digest = hashlib.sha256(
        json.dumps([settings, key.hash if key else "", contents], sort_keys=True).encode()
    ).hexdigest()
    prefix = f"{training.dataset}-{training.model}-{training.fusion}"
    return f"{prefix}-{digest[:8]}-f{training.fold}-s{training.seed}"


def contents_digest(store: Store) -> str:
    """Hexadecimal digest of a store's images, masks, groups and strata, and of their preparation."""
    rows = sorted(
        (info.id, info.group, info.stratum, info.image_digest.hex(), info.mask_digest.hex())
        for info in store.table
        if info.present
    )
    return hashlib.sha256(json.dumps([rows, sorted(store.preparation.items())]).encode()).hexdigest()


def _attempt(planned: PlannedRow, step: Callable[[], PlannedRow]) -> PlannedRow:
    """The row after the next step of planning, or with the reason why it cannot be run."""
    if planned.why_not:
        return planned
    try:
        return step()
    except (NucsegError, CacheError, OSError) as error:
        return replace(planned, why_not=str(error))


def _draft(
    ablation: Ablation, row: Row, dataset: str, config: AblateConfig, progress: Progress, synced: set[str]
) -> PlannedRow:
    stain = row.stain or config.stain or stain_of(dataset)
    plain = plain_name(dataset)
    planned = PlannedRow(row, plain if stain == "none" else f"{plain}@{stain}")

    def embedded() -> PlannedRow:
        training = _training(ablation, row, planned.dataset, config)
        with torch.device("meta"):
            n_parameters = sum(parameter.numel() for parameter in build_network(training).parameters())
        check_weights(training)
        if training.dataset not in synced:
            sync_images(training, progress)
            synced.add(training.dataset)
        n_encoded = embed_missing(training, progress)
        return replace(planned, training=training, n_parameters=n_parameters, n_encoded=n_encoded)

    return _attempt(planned, embedded)


def _training(ablation: Ablation, row: Row, dataset: str, config: AblateConfig) -> TrainConfig:
    if row.only_with and not getattr(config, row.only_with, None):
        raise ConfigError(f"This row needs the option --{row.only_with}, which was not given.")
    own = row.settings.get("encoder")
    encoder = own or config.encoder or TrainConfig.encoder
    settings = {**ablation.train, **(QUICK if config.quick else {}), **row.settings}
    places = {"dataset": dataset, "cache": config.cache, "encoder": encoder, "device": config.device}
    weights = None if own else config.weights
    training = resolve(TrainConfig, {}, {**settings, **places, "weights": weights, "threads": config.threads})
    if training.fusion != "none" and EncoderSpec.parse(encoder, weights).architecture == "random":
        raise ConfigError(f"The encoder {encoder} has random weights: a score with its guidance would be meaningless.")
    return training


def _with_runs(
    ablation: Ablation, planned: PlannedRow, config: AblateConfig, before: Sequence[PlannedRow]
) -> PlannedRow:
    training = planned.training
    if training is None:  # why_not says why
        return planned
    selection = Selection.open(training)
    store, key = selection.store, selection.key
    most = n_folds(split_rows(store), dataset=training.dataset, protocol=training.split)
    folds = config.folds or (1 if config.quick else ablation.folds_of(plain_name(training.dataset)))
    shared = _quick(training, store) if config.quick else training
    contents = contents_digest(store)
    if training.views not in ("identity", "d4"):  # these are defined by their name
        variants = {name: view.described for name, view in selection.views(()).items()}
        contents = hashlib.sha256(json.dumps([contents, variants], sort_keys=True).encode()).hexdigest()
    exact = selection.mixing_images(selection.present_ids)
    if exact:
        contents = hashlib.sha256(json.dumps([contents, exact]).encode()).hexdigest()
    repeats = [
        replace(shared, fold=fold, seed=seed)
        for fold in range(min(folds, most))
        for seed in config.seeds or ablation.seeds
    ]
    runs = tuple(replace(run, run=config.runs / run_folder_name(run, key, contents)) for run in repeats)
    _check_same_tests(store, runs, next((row for row in before if row.runs), None))
    return replace(planned, runs=runs)


def _check_same_tests(store: Store, runs: Sequence[TrainConfig], first: PlannedRow | None) -> None:
    """Refuse a row that is tested on other images than the first row, before hours are spent on it."""
    if first is None:
        return
    other = open_store(first.runs[0].cache, first.dataset)
    for run, reference in zip(runs, first.runs, strict=False):
        if set(make_split(store, run).test) != set(make_split(other, reference).test):
            raise ConfigError(
                f"In fold {run.fold} this row would be tested on other images than the row {first.row.name!r}: its "
                f"protocol is {run.split!r} and its store {store.location}, those of the other row are "
                f"{reference.split!r} and {other.location}. All rows of a table have the same test images; put this "
                "row into another table."
            )


def _quick(training: TrainConfig, store: Store) -> TrainConfig:
    """Bound the number of images that a run sees, whatever the size of the data set; the same for all folds."""
    parts = make_split(store, training)
    n_train, n_validation = len(parts.train), len(parts.validation)
    epochs = min(max(training.epochs, training.epochs * QUICK_IMAGES // n_train // 2), MAX_QUICK_EPOCHS)
    return replace(
        training,
        epochs=epochs,
        epoch_images=QUICK_IMAGES if n_train > QUICK_IMAGES else None,
        validation_images=QUICK_VALIDATION if n_validation > QUICK_VALIDATION else None,
    )


def all_runs(rows: Sequence[PlannedRow]) -> list[TrainConfig]:
    """Every run once, fold by fold over all rows: if training is stopped early, the rows can still be compared."""
    by_folder: dict[Path, TrainConfig] = {}
    for run in sorted((run for row in rows for run in row.runs), key=lambda run: (run.fold, run.seed)):
        by_folder.setdefault(run.folder, run)
    return list(by_folder.values())
