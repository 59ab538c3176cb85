"""Shell completion of names: data sets, encoders, recipes, and what can be fetched."""

from __future__ import annotations

from collections.abc import Iterable

ENCODERS = ("vit_b", "vit_l", "vit_h", "student", "student:", "random", "onnx:")


def datasets(incomplete: str) -> list[str]:
    """Known data sets, and the stores in the default cache."""
    from nucseg.data import dataset_names
    from nucseg_pipeline.config import default_cache
    from nucseg_pipeline.datasets.cached import store_names

    return _beginning(incomplete, {*dataset_names(), *store_names(default_cache())} - {"folder"})


def encoders(incomplete: str) -> list[str]:
    """Names of encoders."""
    return _beginning(incomplete, ENCODERS)


def recipes(incomplete: str) -> list[str]:
    """Names of the recipes of stages."""
    return _beginning(incomplete, _recipes(of_tables=False))


def tables(incomplete: str) -> list[str]:
    """Names of the recipes of tables."""
    return _beginning(incomplete, _recipes(of_tables=True))


def fetched(incomplete: str) -> list[str]:
    """Names of what can be fetched."""
    from nucseg_pipeline.fetch.catalogue import CATALOGUE

    return _beginning(incomplete, CATALOGUE)


def _recipes(*, of_tables: bool) -> list[str]:
    from nucseg_pipeline.config.recipe import read_recipe, recipe_names

    return [name for name in recipe_names() if ("ablation" in read_recipe(name)) == of_tables]


def _beginning(incomplete: str, names: Iterable[str]) -> list[str]:
    return sorted(name for name in names if name.startswith(incomplete))
