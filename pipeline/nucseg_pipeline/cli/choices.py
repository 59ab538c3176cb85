"""The names that a field of a configuration takes, for shell completion, and for a test that tries all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING

from nucseg_pipeline.config import AblateConfig, DistillConfig, FidelityConfig, FiguresConfig

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_SHARED: Mapping[str, str] = {
    "activation": "nucseg.models.ACTIVATIONS",
    "augmentation": "nucseg_pipeline.config.train.GEOMETRIES",
    "convert": "nucseg.data.conversion.CONVERSIONS",
    "device": "nucseg_pipeline.config.checks.DEVICES",
    "encoder": "nucseg.encoders.encoder_names",
    "format": "nucseg_cache.FORMATS",
    "fusion": "nucseg.models.FUSIONS",
    "grid": "nucseg_pipeline.config.report.GRIDS",
    "instance_head": "nucseg.models.INSTANCE_HEADS",
    "log": "nucseg_pipeline.config.train.LOGS",
    "mixed_precision": "nucseg_pipeline.config.train.MIXED_PRECISIONS",
    "model": "nucseg.models.MODELS",
    "photometric": "nucseg.photometric.photometric_names",
    "precision": "nucseg.encoders.factory.precision_names",
    "preload": "nucseg_pipeline.config.train.PRELOADS",
    "replay": "nucseg_pipeline.config.train.REPLAYS",
    "schedule": "nucseg_pipeline.config.train.SCHEDULES",
    "size": "nucseg_pipeline.config.distill.SIZES",
    "split": "nucseg.data.splits.protocol_names",
    "stain": "nucseg.data.STAINS",
    "teacher": "nucseg.encoders.encoder_names",
    "transforms": "nucseg_pipeline.fidelity.motions.motion_names",
    "views": "nucseg.views.view_names",
}
"""Field -> the list of its names, or the function that returns it; imported when asked for, which may take seconds."""

_OWN: Mapping[tuple[type, str], str] = {
    (AblateConfig, "recipe"): "nucseg_pipeline.config.recipe.table_names",
    (FidelityConfig, "photometric"): "nucseg_pipeline.fidelity.photometric.colour_names",
    (DistillConfig, "mixed_precision"): "nucseg_pipeline.config.distill.MIXED_PRECISIONS",
    (FiguresConfig, "format"): "nucseg_pipeline.config.figures.FILE_FORMATS",
}


def choices(config: type[DataclassInstance], field: str) -> Callable[[], tuple[str, ...]] | None:
    """Lists the names that a field takes; None if it takes other values, such as numbers and paths.

    FILE and SEED in a name stand for what the user adds. Some fields also take a file of the user in place of a name.
    """
    source = _OWN.get((config, field)) or _SHARED.get(field)
    return None if source is None else partial(_names, source)


def _names(source: str) -> tuple[str, ...]:
    module, _, name = source.rpartition(".")
    found = getattr(import_module(module), name)
    return tuple(found() if callable(found) else found)
