"""What several configurations are checked for."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from nucseg.errors import ConfigError

MOST = 2**63
"""What libraries count with ends here."""


def check_names(names: tuple[str, ...], runs: tuple[Path, ...]) -> None:
    """Raise ConfigError unless every run has a name of its own, or none has."""
    if names and (len(names) != len(runs) or len(set(names)) < len(names)):
        raise ConfigError(f"Every run has a name of its own: got {len(runs)} runs and the names {', '.join(names)}.")


def check_dataset(name: str) -> None:
    """A data set's name becomes a file name, so it must not wander through folders."""
    if not re.fullmatch(r"\w[\w.@+-]*", name):
        raise ConfigError(
            f"dataset must be a name of letters, digits and . _ @ + -, got {name!r}. "
            "A folder goes with --source, its name in the cache with --dataset."
        )


def check_device(name: str) -> None:
    """Raise ConfigError unless torch could know a device by that name."""
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", name):
        raise ConfigError(f"device must be auto, cpu, mps, cuda or cuda:N, got {name!r}.")


def check_seed(seed: int) -> None:
    """Raise ConfigError unless every library takes the seed."""
    if not 0 <= seed < 2**32:
        raise ConfigError(f"seed must be at least 0 and below 2**32, got {seed}.")


def check_choice(config: Any, name: str, choices: tuple[str, ...]) -> None:
    """Raise ConfigError unless the field of that name is one of the choices."""
    value = getattr(config, name)
    if value not in choices:
        raise ConfigError(f"{name} must be {' or '.join(choices)}, got {value!r}.")


def check_at_least(config: Any, minimum: int, names: Iterable[str]) -> None:
    """Raise ConfigError where a field of these names is below the minimum, or beyond all use; None is neither."""
    for name in names:
        value = getattr(config, name)
        if value is not None and not minimum <= value < MOST:
            raise ConfigError(f"{name} must be at least {minimum} and below {MOST:,}, got {value}.")


def check_filled(config: Any, names: Iterable[str]) -> None:
    """Raise ConfigError where a field of these names is an empty text."""
    for name in names:
        if getattr(config, name) == "":
            raise ConfigError(f"{name} is empty. Leave it out to take the default.")
