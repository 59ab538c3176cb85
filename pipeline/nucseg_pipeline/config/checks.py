"""Checks that several configurations share."""

import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from nucseg.errors import ConfigError, suggestion

DEVICES = ("auto", "cpu", "mps", "cuda")
"""Names of devices; cuda:N names one of several."""

COUNT_LIMIT = 2**63
"""Libraries count in signed 64-bit integers."""


def check_names(names: tuple[str, ...], runs: tuple[Path, ...]) -> None:
    """Raise ConfigError unless every run has a name of its own, or none has."""
    if names and (len(names) != len(runs) or len(set(names)) < len(names)):
        raise ConfigError(f"Every run needs a name of its own: got {len(runs)} runs and the names {', '.join(names)}.")


def check_dataset(name: str) -> None:
    """Raise ConfigError for a name that is no file name: a data set's store is named after it."""
    if not re.fullmatch(r"\w[\w.@+-]*", name):
        raise ConfigError(
            f"dataset must be a name of letters, digits and . _ @ + -, got {name!r}. "
            "Give a folder with --source and its name in the cache with --dataset."
        )


def check_device(name: str) -> None:
    """Raise ConfigError for what is no name of a device in torch."""
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", name):
        near = suggestion(name, DEVICES)
        raise ConfigError(f"device must be auto, cpu, mps, cuda or cuda:N, got {name!r}. {near}".rstrip())


def check_seed(seed: int) -> None:
    """Raise ConfigError for a seed that some library refuses."""
    if not 0 <= seed < 2**32:
        raise ConfigError(f"seed must be at least 0 and below 2**32, got {seed}.")


def check_learning_rate(rate: float) -> None:
    """Raise ConfigError for a learning rate that cannot train."""
    if not (rate > 0 and math.isfinite(rate)):
        raise ConfigError(f"learning_rate must be above 0 and finite, got {rate}.")


def check_choice(config: Any, name: str, choices: tuple[str, ...]) -> None:
    """Raise ConfigError unless the field of that name is one of the choices."""
    value = getattr(config, name)
    if value not in choices:
        *others, last = choices
        listed = f"{', '.join(others)} or {last}" if others else last
        raise ConfigError(f"{name} must be {listed}, got {value!r}. {suggestion(value, choices)}".rstrip())


def check_at_least(config: Any, minimum: int, names: Iterable[str]) -> None:
    """Raise ConfigError where a field of these names is below the minimum or too large to count; None is fine."""
    for name in names:
        value = getattr(config, name)
        if value is not None and not minimum <= value < COUNT_LIMIT:
            limit = f"at least {minimum}" if value < minimum else f"below {COUNT_LIMIT:,}"
            raise ConfigError(f"{name} must be {limit}, got {value}.")


def check_filled(config: Any, names: Iterable[str]) -> None:
    """Raise ConfigError where a field of these names is an empty string."""
    for name in names:
        if getattr(config, name) == "":
            raise ConfigError(f"{name} is empty. Leave it out to take the default.")
