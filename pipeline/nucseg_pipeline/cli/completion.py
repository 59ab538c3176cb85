"""Shell completion of names: data sets, recipes, what can be fetched, and the names that options take."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from nucseg_pipeline.cli.choices import choices

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Completion = Callable[[str], list[str]]

_PLACEHOLDER = re.compile(":[A-Z]+$")
"""What the user adds to a name, as in `onnx:FILE`."""


def datasets(incomplete: str) -> list[str]:
    """Known data sets, and the stores in the default cache."""
    from nucseg.data import dataset_names
    from nucseg_pipeline.config import default_cache
    from nucseg_pipeline.datasets.cached import store_names

    return _beginning(incomplete, {*dataset_names(), *store_names(default_cache())} - {"folder"})


def stores(incomplete: str) -> list[str]:
    """Data sets with a store in the default cache."""
    from nucseg_pipeline.config import default_cache
    from nucseg_pipeline.datasets.cached import store_names

    return _beginning(incomplete, store_names(default_cache()))


def names(config: type[DataclassInstance], field: str) -> Completion | None:
    """Completes the names that a field takes; None if it takes none."""
    listed = choices(config, field)
    if listed is None:
        return None

    def complete(incomplete: str) -> list[str]:
        return _beginning(incomplete, (_PLACEHOLDER.sub(":", name) for name in listed()))

    return complete


def recipes(incomplete: str) -> list[str]:
    """Names of the recipes of stages."""
    from nucseg_pipeline.config.recipe import recipe_names, table_names

    return _beginning(incomplete, {*recipe_names()} - {*table_names()})


def fetched(incomplete: str) -> list[str]:
    """Names of what can be fetched."""
    from nucseg_pipeline.fetch.catalogue import CATALOGUE

    return _beginning(incomplete, CATALOGUE)


def _beginning(incomplete: str, names: Iterable[str]) -> list[str]:
    return sorted({name for name in names if name.startswith(incomplete)})
