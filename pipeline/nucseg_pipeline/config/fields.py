"""Convert values to the types of a configuration's fields: from TOML, JSON, the command line, and Python."""

from __future__ import annotations

import math
import reprlib
import types
from collections.abc import Mapping, Sequence
from dataclasses import fields
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union, get_args, get_origin, get_type_hints

from nucseg.errors import ConfigError
from nucseg.paths import as_path

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def convert_fields(config: DataclassInstance) -> None:
    """Convert the fields of a new frozen dataclass to their types: a path may be given as a string, a tuple as a list.

    Raises ConfigError for the first value that does not fit.
    """
    hints = get_type_hints(type(config))
    for field in fields(config):
        value = getattr(config, field.name)
        if value is not None or not _is_optional(hints[field.name]):
            object.__setattr__(config, field.name, convert(value, hints[field.name], field.name))


def convert(value: object, hint: Any, what: str) -> Any:
    """Convert a value to the type of a field; ConfigError, which calls it `what`, if it does not fit."""
    allowed = [kind for kind in (get_args(hint) if _is_union(hint) else (hint,)) if kind is not type(None)]
    for kind in allowed:
        origin, items = get_origin(kind), get_args(kind)
        if origin in (tuple, Sequence) and isinstance(value, list | tuple):
            converted = [convert(item, items[0], what) for item in value]
            return tuple(converted) if origin is tuple else converted
        if origin is Mapping and isinstance(value, dict):
            return {name: convert(item, items[1], what) for name, item in value.items()}
        if _fits(value, kind):
            return as_path(value) if kind is Path and isinstance(value, str | Path) else kind(value)
    raise ConfigError(f"{what} must be {' or '.join(map(_in_words, allowed))}, got {reprlib.repr(value)}.")


def _is_union(hint: Any) -> bool:
    return get_origin(hint) in (Union, types.UnionType)


def _is_optional(hint: Any) -> bool:
    return _is_union(hint) and type(None) in get_args(hint)


def _fits(value: object, kind: Any) -> bool:
    """Whether a single value fits; numbers of NumPy do, and a bool, which is an int in Python, is no number."""
    if isinstance(value, str | Path):
        return "\0" not in str(value) and kind in (Path, str)
    if isinstance(value, bool) or kind is bool:
        return type(value) is kind
    if kind is float:
        return isinstance(value, Real) and _is_finite(value)
    return kind is int and isinstance(value, Integral)


def _is_finite(number: Real) -> bool:
    try:
        return math.isfinite(float(number))
    except OverflowError:  # an integer too large for a float
        return False


def _in_words(kind: Any) -> str:
    names = {str: "a string", int: "a whole number", float: "a number", bool: "true or false", Path: "a path"}
    if get_origin(kind) is Mapping:
        return "a table"
    return names.get(kind) or f"a list of {'paths' if get_args(kind)[0] is Path else 'strings'}"
