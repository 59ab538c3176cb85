"""The recipe of a table: its rows, their shared settings, and published scores."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from nucseg.data.stain import STAINS
from nucseg.errors import ConfigError, known, suggestion
from nucseg_pipeline.config import TrainConfig
from nucseg_pipeline.config.checks import check_dataset, check_seed
from nucseg_pipeline.config.recipe import checked, read_recipe

PLANNED = frozenset({"dataset", "fold", "seed", "cache", "run", "resume", "threads", "device", "weights"})
"""Training fields that the table sets itself; its recipe may not."""

MAX_ROWS = 1000

PUBLISHED_METRICS = ("dice", "miou")


@dataclass(frozen=True)
class Row:
    """One row of the table: a configuration and its repeats."""

    name: str
    settings: Mapping[str, Any]
    """Fields of `TrainConfig` that differ from the other rows."""
    stain: str = ""
    """Stain normalisation of the images; empty takes that of the table."""
    only_with: str = ""
    """Name of an option that the row needs; empty if it needs none."""
    published: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Data set -> metric -> published score."""


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """The content of a table's recipe."""

    name: str
    title: str
    source: str = ""
    published_note: str = ""
    """Metric and protocol of the published numbers."""
    datasets: tuple[str, ...]
    baseline: str
    folds: Mapping[str, int] = field(default_factory=dict)
    """Data set -> number of folds of its protocol; all folds if it is not listed."""
    seeds: tuple[int, ...] = (0,)
    rows: tuple[Row, ...]
    train: Mapping[str, Any]

    def folds_of(self, dataset: str) -> int:
        """Most folds of a data set's protocol to run."""
        return self.folds.get(dataset, sys.maxsize)


def load_ablation(name_or_path: str) -> Ablation:
    """Read a recipe with the tables [ablation], [train], and [[row]] or [grid].

    A [grid] names fields of a training with a list of values each; every combination is a row.

    Raises:
        ConfigError: there is no such recipe, or it is invalid.
    """
    tables = read_recipe(name_or_path)
    if "ablation" not in tables:
        raise ConfigError(
            f"{name_or_path} is not the recipe of a table: it has no [ablation]. Recipes without [ablation] are for "
            "`nucseg train`."
        )
    _check_names(tables, ("ablation", "train", "row", "grid"), str(name_or_path))
    about = _table(tables, "ablation", str(name_or_path))
    where = f"{name_or_path}, [ablation]"
    _check_names(about, ("title", "source", "published", "datasets", "baseline", "folds", "seeds"), where)
    rows = (*_rows(tables.get("row", []), str(name_or_path)), *_grid(tables.get("grid", {}), str(name_or_path)))
    if not rows:
        raise ConfigError(f"{name_or_path} has no rows. Add a [[row]] with a name, or a [grid].")
    names = [row.name for row in rows]
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise ConfigError(f"{name_or_path}: two rows are called {doubled[0]!r}. Give each row its own name.")
    baseline = str(about.get("baseline", names[0]))
    if baseline not in names:
        raise ConfigError(f"{where}: the baseline {baseline!r} is not a row. {known(baseline, names)}")
    return Ablation(
        name=str(name_or_path).rpartition("/")[2].removesuffix(".toml"),
        title=_text(about, "title", where) or names[0],
        source=_text(about, "source", where),
        published_note=_text(about, "published", where),
        datasets=_each(_list(about, "datasets", str, where), check_dataset, where) or ("nuinsseg",),
        baseline=baseline,
        folds=_folds(about, where),
        seeds=_each(_list(about, "seeds", int, where), check_seed, where) or (0,),
        rows=rows,
        train=_settings(_table(tables, "train", str(name_or_path)), f"{name_or_path}, [train]"),
    )


def _rows(tables: object, where: str) -> Iterator[Row]:
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise ConfigError(f"{where}: rows must be written as [[row]], each with a name.")
    for position, table in enumerate(tables, start=1):
        given = dict(table)
        name = given.pop("name", "")
        place = f"{where}, row {position}"
        if not isinstance(name, str) or not name.strip():
            raise ConfigError(f'{place} has no name. Give it one, as in name = "X-GFB".')
        yield Row(
            name=name,
            stain=_stain(given.pop("stain", ""), place),
            only_with=str(given.pop("only_with", "")),
            published=_published(given.pop("published", {}), place),
            settings=_settings(given, place),
        )


def _grid(axes: object, where: str) -> Iterator[Row]:
    if not isinstance(axes, dict) or not all(isinstance(values, list) and values for values in axes.values()):
        raise ConfigError(f'{where}, [grid]: every field must have a list of values, as in fusion = ["none", "xgfb"].')
    n_rows = math.prod(map(len, axes.values()))
    if n_rows > MAX_ROWS:
        raise ConfigError(
            f"{where}, [grid]: its values make {n_rows:,} rows, more than the {MAX_ROWS:,} that a "
            "table may have. Leave some of them out."
        )
    for values in product(*axes.values()) if axes else ():
        given = dict(zip(axes, values, strict=True))
        name = ", ".join(str(value) if isinstance(value, str) else f"{key} {value}" for key, value in given.items())
        stain = _stain(given.pop("stain", ""), f"{where}, [grid]")
        yield Row(name=name, stain=stain, settings=_settings(given, f"{where}, [grid]"))


def _settings(values: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    planned = sorted(set(values) & PLANNED)
    if planned:
        raise ConfigError(
            f"{planned[0]!r} in {where}: a table sets it itself. Data sets, folds and seeds go into [ablation]; the "
            "others are options of `nucseg ablate`."
        )
    return checked(TrainConfig, values, where)


def _published(values: object, where: str) -> Mapping[str, Mapping[str, float]]:
    if not isinstance(values, dict):
        raise ConfigError(f"published in {where} must be data sets with their scores, got {values!r}.")
    for dataset, scores in values.items():
        numbers = isinstance(scores, dict) and all(
            isinstance(value, float) and math.isfinite(value) for value in scores.values()
        )
        if not numbers or set(scores) - set(PUBLISHED_METRICS):
            raise ConfigError(
                f"published.{dataset} in {where} must be like {{ dice = 0.9399, miou = 0.8938 }}, got {scores!r}."
            )
    return values


def _stain(value: object, where: str) -> str:
    if not isinstance(value, str) or (value and value not in STAINS):
        near = suggestion(value, STAINS)
        raise ConfigError(f"stain in {where} must be {' or '.join(STAINS)}, got {value!r}. {near}".rstrip())
    return value


def _folds(about: Mapping[str, Any], where: str) -> Mapping[str, int]:
    values = about.get("folds", {})
    if not isinstance(values, dict) or any(type(value) is not int or value < 1 for value in values.values()):
        raise ConfigError(f"folds in {where} must be like {{ nuinsseg = 5 }}, numbers of 1 or more, got {values!r}.")
    return values


def _each(values: Sequence[Any], check: Callable[[Any], None], where: str) -> tuple[Any, ...]:
    """The values, without duplicates. ConfigError if a value does not pass the check."""
    for value in values:
        try:
            check(value)
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from None
    return tuple(dict.fromkeys(values))


def _table(tables: Mapping[str, Any], name: str, where: str) -> dict[str, Any]:
    table = tables.get(name, {})
    if not isinstance(table, dict):
        raise ConfigError(f"{where}: {name} must be a table, [{name}], got {table!r}.")
    return table


def _text(about: Mapping[str, Any], name: str, where: str) -> str:
    value = about.get(name, "")
    if not isinstance(value, str):
        raise ConfigError(f"{name} in {where} must be a string, got {value!r}.")
    return value


def _list(about: Mapping[str, Any], name: str, kind: type, where: str) -> Sequence[Any]:
    values = about.get(name, [])
    if not isinstance(values, list) or not all(type(value) is kind for value in values):
        raise ConfigError(
            f"{name} in {where} must be a list of {'names' if kind is str else 'numbers'}, got {values!r}."
        )
    return values


def _check_names(values: Mapping[str, Any], valid: Sequence[str], where: str) -> None:
    for name in values:
        if name not in valid:
            raise ConfigError(f"Unknown name {name!r} in {where}. {known(name, valid)}")
