"""The names that a field of a configuration takes, for shell completion, and for a test that tries all of them.

The packages that know the names are imported when they are asked for, since they take seconds to import.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from nucseg_pipeline.config.ablate import AblateConfig
from nucseg_pipeline.config.distill import MIXED_PRECISIONS as DISTILL_MIXED_PRECISIONS
from nucseg_pipeline.config.distill import SIZES, DistillConfig
from nucseg_pipeline.config.figures import FILE_FORMATS, FiguresConfig
from nucseg_pipeline.config.report import GRIDS
from nucseg_pipeline.config.train import GEOMETRIES, LOGS, MIXED_PRECISIONS, PRELOADS, REPLAYS, SCHEDULES

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Names = Callable[[], Iterable[str]]


def choices(config: type[DataclassInstance], field: str) -> Names | None:
    """Lists the names that a field takes; None if it takes other values, such as numbers and paths.

    FILE and SEED in a name stand for what the user adds. Some fields also take a file of the user in place of a name.
    """
    return _OWN.get((config, field)) or _SHARED.get(field)


def _activations() -> Iterable[str]:
    from nucseg.models import ACTIVATIONS

    return ACTIVATIONS


def _encoders() -> Iterable[str]:
    from nucseg.encoders import encoder_names

    return encoder_names()


def _formats() -> Iterable[str]:
    from nucseg_cache import FORMATS

    return FORMATS


def _fusions() -> Iterable[str]:
    from nucseg.models import FUSIONS

    return FUSIONS


def _instance_heads() -> Iterable[str]:
    from nucseg.models import INSTANCE_HEADS

    return INSTANCE_HEADS


def _models() -> Iterable[str]:
    from nucseg.models import MODELS

    return MODELS


def _motions() -> Iterable[str]:
    from nucseg_pipeline.fidelity.motions import known_motions

    return ("d4", *known_motions(), "papers")


def _precisions() -> Iterable[str]:
    from nucseg.encoders.architectures import PRECISIONS

    return ("auto", *PRECISIONS)


def _splits() -> Iterable[str]:
    from nucseg.data.splits import protocol_names

    return protocol_names()


def _stains() -> Iterable[str]:
    from nucseg.data import STAINS

    return STAINS


def _tables() -> Iterable[str]:
    from nucseg_pipeline.config.recipe import read_recipe, recipe_names

    return (name for name in recipe_names() if "ablation" in read_recipe(name))


def _views() -> Iterable[str]:
    from nucseg.views import view_names

    return view_names()


_SHARED: Mapping[str, Names] = {
    "activation": _activations,
    "augmentation": lambda: GEOMETRIES,
    "device": lambda: ("auto", "cpu", "mps", "cuda"),
    "encoder": _encoders,
    "format": _formats,
    "fusion": _fusions,
    "grid": lambda: GRIDS,
    "instance_head": _instance_heads,
    "log": lambda: LOGS,
    "mixed_precision": lambda: MIXED_PRECISIONS,
    "model": _models,
    "precision": _precisions,
    "preload": lambda: PRELOADS,
    "replay": lambda: REPLAYS,
    "schedule": lambda: SCHEDULES,
    "size": lambda: SIZES,
    "split": _splits,
    "stain": _stains,
    "teacher": _encoders,
    "transforms": _motions,
    "views": _views,
}

_OWN: Mapping[tuple[type, str], Names] = {
    (AblateConfig, "recipe"): _tables,
    (DistillConfig, "mixed_precision"): lambda: DISTILL_MIXED_PRECISIONS,
    (FiguresConfig, "format"): lambda: FILE_FORMATS,
}
