"""Configurations from and to TOML: recipes name only what differs, options beat them, defaults fill the rest."""

import json
import sys
import types
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, fields
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, Union, get_args, get_origin, get_type_hints

from nucseg.errors import ConfigError, known
from nucseg.toml import parse_toml, read_toml
from nucseg_pipeline.config import (
    DistillConfig,
    EmbedConfig,
    PredictConfig,
    Record,
    ReportConfig,
    TrainConfig,
)

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

STAGES: dict[str, type[Any]] = {
    "embed": EmbedConfig,
    "train": TrainConfig,
    "report": ReportConfig,
    "predict": PredictConfig,
    "distill": DistillConfig,
}
"""The table of a recipe that speaks to a stage, and what the stage is configured by."""

TABLES: dict[str, type[Any]] = {**STAGES, "record": Record}
"""All tables that a recipe may have."""

C = TypeVar("C", bound="DataclassInstance")


def recipe_names() -> tuple[str, ...]:
    """The recipes that come with the package, as `load_recipe` takes them."""
    folder = resources.files("nucseg_pipeline") / "recipes"
    return tuple(sorted(entry.name[:-5] for entry in folder.iterdir() if entry.name.endswith(".toml")))


def load_recipe(name_or_path: str | Path, stage: str) -> dict[str, object]:
    """What a recipe says to one stage, checked; empty where it says nothing.

    `name_or_path` is the name of a recipe of the package or a TOML file; the config.toml of a run is one too.
    Raises ConfigError for an unknown recipe, broken TOML, an unknown table or key, a value of the wrong type.
    """
    tables = read_recipe(name_or_path)
    if "ablation" in tables:
        raise ConfigError(f"{name_or_path} is the recipe of a table. Make it with `nucseg ablate {name_or_path}`.")
    for table, values in tables.items():
        if not isinstance(values, dict):
            raise ConfigError(f"{name_or_path}: {table!r} stands outside a table. Put it under [train] or [embed].")
        if table not in TABLES:
            raise ConfigError(f"{name_or_path}: unknown table [{table}]. {known(table, sorted(TABLES))}")
        checked(TABLES[table], values, f"{name_or_path}, [{table}]")
    return dict(tables.get(stage, {}))


def load_record(name_or_path: str | Path) -> str:
    """The xxh128, hexadecimal, of the student that a recipe made for the package; empty where it records none."""
    return str(read_recipe(name_or_path).get("record", {}).get("weights", ""))


def read_recipe(name_or_path: str | Path) -> dict[str, Any]:
    """The tables of a recipe of the package or of a TOML file, as they stand there.

    Raises ConfigError where there is no such recipe, or it is not TOML.
    """
    return parse_toml(_read(str(name_or_path)), f"The recipe {name_or_path}")


def resolve(stage: type[C], recipe: Mapping[str, object], options: Mapping[str, object]) -> C:
    """One stage's configuration: options that are not None beat the recipe, the recipe beats the defaults."""
    given = {**recipe, **{name: value for name, value in options.items() if value is not None}}
    needed = [f.name for f in fields(stage) if f.default is MISSING and f.default_factory is MISSING]
    missing = [name for name in needed if name not in given]
    if missing:
        raise ConfigError(f"Nothing says what {missing[0]} is: give --{missing[0]}, or a recipe that names it.")
    return stage(**checked(stage, given, "the options"))


def to_toml(
    config: EmbedConfig | TrainConfig | ReportConfig | PredictConfig | DistillConfig, *, without: Iterable[str] = ()
) -> str:
    """A configuration as the recipe that gives it: one table, one line a field, None left out."""
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
    """The values in the types of the stage's fields; ConfigError names the first that does not fit, and `where`."""
    hints = get_type_hints(stage)
    for name in values:
        if name not in hints:
            raise ConfigError(f"Unknown key {name!r} in {where}. {known(name, sorted(hints))}")
    return {name: _convert(value, hints[name], f"{name} in {where}") for name, value in values.items()}


def _convert(value: object, hint: Any, what: str) -> Any:
    if get_origin(hint) in (Union, types.UnionType):
        allowed = tuple(kind for kind in get_args(hint) if kind is not type(None))
    else:
        allowed = (hint,)
    for kind in allowed:
        if get_origin(kind) is tuple and isinstance(value, list | tuple):
            return tuple(_convert(item, get_args(kind)[0], what) for item in value)
        if kind is Path and isinstance(value, Path):
            return value
        if kind is Path and isinstance(value, str) and "\0" not in value:
            return Path(value).expanduser() if value.startswith("~/") else Path(value)
        # a bool is an int in Python, but not in a recipe
        if type(value) is kind and "\0" not in (value if isinstance(value, str) else ""):
            return value
        if kind is float and type(value) is int and abs(value) < sys.float_info.max:
            return float(value)
    raise ConfigError(f"{what} must be {' or '.join(map(_spoken, allowed))}, got {value!r}.")


def _spoken(kind: Any) -> str:
    names = {str: "a string", int: "a whole number", float: "a number", bool: "true or false", Path: "a path"}
    if kind in names:
        return names[kind]
    return f"a list of {'paths' if get_args(kind)[:1] == (Path,) else 'texts'}"


def _literal(name: str, value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, tuple):
        return f"[{', '.join(_literal(name, item) for item in value)}]"
    # a folder that is really called ~ is not the home folder when it is read back
    text = f"./{value}" if isinstance(value, Path) and str(value).startswith("~/") else str(value)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ConfigError(f"{name} {text!r} is not valid UTF-8 and cannot be written down. Rename it.") from None
    # JSON escapes what TOML wants escaped, but for the delete character
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
