"""The command that a configuration stands for, as a line that can be pasted into a shell."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterator
from dataclasses import MISSING, Field, fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

ARGUMENTS = {"ablate": "recipe", "figures": "runs", "predict": "images", "report": "runs"}
"""Command -> the field that is given without an option."""

ONE_OF_SEVERAL = {"datasets": "dataset", "images": "image", "names": "name", "seeds": "seed", "transforms": "transform"}
"""Tuple field -> its option, which is given once for each item."""


def command(
    config: DataclassInstance, *, without: Collection[str] = (), always: Collection[str] = (), **stated: object
) -> str:
    """The command that runs a stage with a configuration; options at their default are left out.

    Args:
        config: the configuration of a stage.
        without: fields to leave out.
        always: fields to state even at their default.
        stated: options that are no fields, and come first.
    """
    name = type(config).__name__.removesuffix("Config").lower()
    argument = ARGUMENTS.get(name, "")
    # the stain of a configuration of `embed` is part of its data set's name
    hidden = {argument, *without, *(("stain",) if name == "embed" else ())}
    words = ["nucseg", name, *(_words(getattr(config, argument)) if argument else ())]
    for option, value in stated.items():
        words += _option(option, value)
    for field in fields(config):
        value = getattr(config, field.name)
        if field.name in always or (field.name not in hidden and value != _default(field)):
            words += _option(field.name, value)
    return shlex.join(words)


def flag(name: str) -> str:
    """The option of a field."""
    return f"--{name.replace('_', '-')}"


def _option(name: str, value: object) -> Iterator[str]:
    if value is None:
        return
    if value is False:
        name = f"no_{name}"
    if isinstance(value, tuple):
        name = ONE_OF_SEVERAL.get(name, name)
    for word in _words(value):
        yield flag(name)
        if not isinstance(value, bool):
            yield word


def _words(value: object) -> list[str]:
    return [str(item) for item in value] if isinstance(value, tuple) else [str(value)]


def _default(field: Field[Any]) -> object:
    return field.default if field.default_factory is MISSING else field.default_factory()
