"""Configurations from and to TOML: a recipe overrides the defaults, options override the recipe."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, fields
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_type_hints

from nucseg.errors import ConfigError, known
from nucseg.toml import parse_toml, read_toml
from nucseg_pipeline.config import DistillConfig, EmbedConfig, PredictConfig, Record, ReportConfig, TrainConfig
from nucseg_pipeline.config.fields import convert

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

STAGES: dict[str, type[Any]] = {
    "embed": EmbedConfig,
    "train": TrainConfig,
    "report": ReportConfig,
    "predict": PredictConfig,
    "distill": DistillConfig,
}
"""Table of a recipe -> the configuration of the stage of that name."""

TABLES: dict[str, type[Any]] = {**STAGES, "record": Record}
"""All tables that a recipe can have."""

C = TypeVar("C", bound="DataclassInstance")


def recipe_names() -> tuple[str, ...]:
    """Names of the recipes that come with the package."""
    folder = resources.files("nucseg_pipeline") / "recipes"
    return tuple(sorted(entry.name[:-5] for entry in folder.iterdir() if entry.name.endswith(".toml")))


def table_names() -> tuple[str, ...]:
    """Names of those of them that are recipes of tables."""
    return tuple(name for name in recipe_names() if "ablation" in read_recipe(name))


def load_recipe(name_or_path: str | Path, stage: str) -> dict[str, object]:
    """Read the values that a recipe sets for one stage; empty if it sets none.

    `name_or_path` is the name of a recipe of the package or a TOML file, for example the config.toml of a run. Raises
    ConfigError for an unknown recipe, broken TOML, an unknown table or key, or a value of the wrong type.
    """
    tables = read_recipe(name_or_path)
    if "ablation" in tables:
        raise ConfigError(f"{name_or_path} is the recipe of a table. Make it with `nucseg ablate {name_or_path}`.")
    for table, values in tables.items():
        if not isinstance(values, dict):
            raise ConfigError(f"{name_or_path}: {table!r} is outside a table. Put it under [train] or [embed].")
        if table not in TABLES:
            raise ConfigError(f"{name_or_path}: unknown table [{table}]. {known(table, sorted(TABLES))}")
        checked(TABLES[table], values, f"{name_or_path}, [{table}]")
    return dict(tables.get(stage, {}))


def load_record(name_or_path: str | Path) -> str:
    """xxh128, hexadecimal, of the student that a recipe produced for the package; empty if it records none."""
    return str(read_recipe(name_or_path).get("record", {}).get("weights", ""))


def read_recipe(name_or_path: str | Path) -> dict[str, Any]:
    """Read the tables of a recipe of the package or of a TOML file, unchecked.

    Raises ConfigError if there is no such recipe, or it is not TOML.
    """
    return parse_toml(_read(str(name_or_path)), f"The recipe {name_or_path}")


def resolve(stage: type[C], recipe: Mapping[str, object], options: Mapping[str, object]) -> C:
    """Make a stage's configuration: options that are not None override the recipe, which overrides the defaults."""
    given = {**recipe, **{name: value for name, value in options.items() if value is not None}}
    needed = [f.name for f in fields(stage) if f.default is MISSING and f.default_factory is MISSING]
    missing = [name for name in needed if name not in given]
    if missing:
        raise ConfigError(f"{missing[0]} is missing: give --{missing[0]}, or a recipe that names it.")
    return stage(**checked(stage, given, "the options"))


def to_toml(
    config: EmbedConfig | TrainConfig | ReportConfig | PredictConfig | DistillConfig, *, without: Iterable[str] = ()
) -> str:
    """Write a configuration as a recipe: one table, one line per field; fields that are None are left out."""
    table = next(name for name, stage in STAGES.items() if isinstance(config, stage))
    given = {f.name: getattr(config, f.name) for f in fields(config) if f.name not in set(without)}
    lines = [f"{name} = {_literal(name, value)}" for name, value in given.items() if value is not None]
    return "\n".join([f"[{table}]", *lines, ""])


def _read(name: str) -> bytes:
    if name in recipe_names():
        return (resources.files("nucseg_pipeline") / "recipes" / f"{name}.toml").read_bytes()
    try:
        return read_toml(name)
    except FileNotFoundError:
        raise ConfigError(f"No recipe {name!r}, and no such file. {known(name, recipe_names())}") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"The recipe {name!r} cannot be read: {error}. Name another file.") from None


def checked(stage: type[Any], values: Mapping[str, object], where: str) -> dict[str, Any]:
    """Convert values from TOML or JSON to the types of a dataclass's fields.

    Raises ConfigError for the first name that is no field and the first value that does not fit; `where` says where the
    values come from, as in "mine.toml, [train]".
    """
    hints = get_type_hints(stage)
    for name in values:
        if name not in hints:
            raise ConfigError(f"Unknown key {name!r} in {where}. {known(name, sorted(hints))}")
    return {name: convert(value, hints[name], f"{name} in {where}") for name, value in values.items()}


def _literal(name: str, value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, tuple):
        return f"[{', '.join(_literal(name, item) for item in value)}]"
    # a folder that is really called ~ must not be read back as the home folder
    text = f"./{value}" if isinstance(value, Path) and str(value).startswith("~/") else str(value)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ConfigError(f"{name} {text!r} is not valid UTF-8 and cannot be written to a recipe. Rename it.") from None
    # JSON escapes what TOML requires, except the delete character
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
