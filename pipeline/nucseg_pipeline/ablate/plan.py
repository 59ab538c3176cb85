"""Which runs a table needs, what they wait for, and what stands in their way."""

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
from nucseg_pipeline.ablate.prerequisites import embed_what_is_missing, synchronise_images
from nucseg_pipeline.ablate.table_recipe import Ablation, Row
from nucseg_pipeline.config import AblateConfig, TrainConfig
from nucseg_pipeline.config.recipe import resolve
from nucseg_pipeline.datasets.stores import open_store
from nucseg_pipeline.modelling.model import build_network
from nucseg_pipeline.progress import Progress
from nucseg_pipeline.runs.digests import FREE_FIELDS
from nucseg_pipeline.runs.selection import find_key, make_split, mixing_images, open_views, split_rows

QUICK: Mapping[str, Any] = {
    "width": 8,
    "epochs": 10,
    "batch_size": 4,
    "learning_rate": 2e-3,
    "schedule": "cosine",
    "mixed_precision": "bf16",
}
"""What `--quick` trains with, unless a row itself says otherwise; batch and learning rate are for few steps."""

QUICK_IMAGES, QUICK_VALIDATION, MOST_QUICK_EPOCHS = 100, 30, 100
"""Training images an epoch and validation images that `--quick` looks at, and its epochs where there are few images."""


@dataclass(frozen=True)
class PlannedRow:
    """A row of the table for one data set."""

    row: Row
    dataset: str
    """Name of its store."""
    training: TrainConfig | None = None
    """What its runs share; None if the row cannot be run."""
    runs: tuple[TrainConfig, ...] = ()
    """One for each fold and seed; empty if the row cannot be run."""
    why_not: str = ""
    """Why it cannot be run; empty if it can."""
    n_encoded: int = 0
    """Images that went through the encoder for this row."""
    n_parameters: int = 0


def plan_rows(
    ablation: Ablation,
    dataset: str,
    config: AblateConfig,
    progress: Progress,
    planned: Callable[[PlannedRow], None] = lambda row: None,
) -> tuple[PlannedRow, ...]:
    """Find out what every row needs for one data set, embed what is missing, and name the runs.

    A row that cannot be run (no such data, no weights, random weights, no such network, other test images than the
    rows before it) says why, and stops no other. Runs are planned once everything is embedded: a store that grows on
    the way is the same for all rows.

    Args:
        ablation: the recipe.
        dataset: name of the data set, with a stain after an "@" or without.
        config: what was asked for.
        progress: told of the embedding.
        planned: called with each row, in order, at the end.
    """
    synchronised: set[str] = set()
    drafts = [_draft(ablation, row, dataset, config, progress, synchronised) for row in ablation.rows]
    rows: list[PlannedRow] = []
    for draft in drafts:
        row = _attempt(draft, partial(_with_runs, ablation, draft, config, rows))
        rows.append(row)
        planned(row)
    return tuple(rows)


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
    """Hexadecimal digest of what a store holds: images, masks, what splits them, and how they were prepared."""
    rows = sorted(
        (info.id, info.group, info.stratum, info.image_digest.hex(), info.mask_digest.hex())
        for info in store.table
        if info.present
    )
    return hashlib.sha256(json.dumps([rows, sorted(store.preparation.items())]).encode()).hexdigest()


def _attempt(planned: PlannedRow, step: Callable[[], PlannedRow]) -> PlannedRow:
    """The row one step further, or with the reason why it gets no further."""
    if planned.why_not:
        return planned
    try:
        return step()
    except (NucsegError, CacheError, OSError) as error:
        return replace(planned, why_not=str(error))


def _draft(
    ablation: Ablation, row: Row, dataset: str, config: AblateConfig, progress: Progress, synchronised: set[str]
) -> PlannedRow:
    stain = row.stain or config.stain or stain_of(dataset)
    plain = plain_name(dataset)
    planned = PlannedRow(row, plain if stain == "none" else f"{plain}@{stain}")

    def embedded() -> PlannedRow:
        training = _training(ablation, row, planned.dataset, config)
        with torch.device("meta"):
            n_parameters = sum(parameter.numel() for parameter in build_network(training).parameters())
        if training.dataset not in synchronised:
            synchronise_images(training, progress)
            synchronised.add(training.dataset)
        n_encoded = embed_what_is_missing(training, progress)
        return replace(planned, training=training, n_parameters=n_parameters, n_encoded=n_encoded)

    return _attempt(planned, embedded)


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


def _with_runs(
    ablation: Ablation, planned: PlannedRow, config: AblateConfig, before: Sequence[PlannedRow]
) -> PlannedRow:
    training = planned.training
    if training is None:  # the draft has said why
        return planned
    store = open_store(training.cache, training.dataset)
    most = n_folds(split_rows(store), dataset=training.dataset, protocol=training.split)
    folds = config.folds or (1 if config.quick else ablation.folds_of(plain_name(training.dataset)))
    shared = _quick(training, store) if config.quick else training
    key, contents = find_key(store, training), contents_digest(store)
    if training.views not in ("identity", "d4"):  # of these the name says all there is to say
        variants = {name: view.described for name, view in open_views(store, key, training, ()).items()}
        contents = hashlib.sha256(json.dumps([contents, variants], sort_keys=True).encode()).hexdigest()
    present = [info.id for info in store.table if info.present]
    exact = mixing_images(store, key, training, present)
    if exact:
        contents = hashlib.sha256(json.dumps([contents, exact]).encode()).hexdigest()
    repeats = [
        replace(shared, fold=fold, seed=seed)
        for fold in range(min(folds, most))
        for seed in config.seeds or ablation.seeds
    ]
    runs = tuple(replace(one, run=config.runs / run_folder_name(one, key, contents)) for one in repeats)
    _check_same_tests(store, runs, next((row for row in before if row.runs), None))
    return replace(planned, runs=runs)


def _check_same_tests(store: Store, runs: Sequence[TrainConfig], first: PlannedRow | None) -> None:
    """Refuse a row that is tested on other images than the first one, before hours go into it."""
    if first is None:
        return
    other = open_store(first.runs[0].cache, first.dataset)
    for one, its in zip(runs, first.runs, strict=False):
        if set(make_split(store, one).test) != set(make_split(other, its).test):
            raise ConfigError(
                f"In fold {one.fold} this row would be tested on other images than the row {first.row.name!r}: its "
                f"protocol is {one.split!r}, that row's {its.split!r}, its store {store.location}, that row's "
                f"{other.location}. Rows of one table share their test images; make a table of its own."
            )


def _quick(training: TrainConfig, store: Store) -> TrainConfig:
    """Bound what a run looks at: as many images in all, however many the data set has; the same for all folds."""
    parts = make_split(store, training)
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
