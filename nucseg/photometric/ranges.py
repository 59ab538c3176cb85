"""The values of a recipe, read from TOML and checked: numbers, ranges to draw from, and keys."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from nucseg.errors import ConfigError, known

Range = tuple[float, float]
"""(low, high), to draw from."""


@dataclass(frozen=True)
class Bounded:
    """A parameter's default range to draw from, and the bounds of the ranges that a recipe may give."""

    default: Range
    low: float
    high: float


def read_range(value: object, bounds: Bounded, what: str) -> Range:
    """Check a range [low, high]; ConfigError, which calls it `what`, unless it is in order and within bounds."""
    if not isinstance(value, list) or len(value) != 2:
        raise ConfigError(f"{what} must be a range [low, high], got {value!r}. The default is {bounds.default}.")
    low, high = (read_number(limit, bounds.low, bounds.high, what) for limit in value)
    if low > high:
        raise ConfigError(f"{what} runs from {low} down to {high}. Write the lower limit first.")
    return low, high


def read_number(value: object, low: float, high: float, what: str) -> float:
    """Check a number; ConfigError unless it is from `low` to `high`."""
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        raise ConfigError(f"{what} must be a number from {low} to {high}, got {value!r}.")
    if not low <= value <= high:
        raise ConfigError(f"{what} must be from {low} to {high}, got {value}.")
    return float(value)


def read_integer(value: object, low: int, high: int, what: str) -> int:
    """Check an integer; ConfigError unless it is from `low` to `high`."""
    if type(value) is not int or not low <= value <= high:
        raise ConfigError(f"{what} must be an integer from {low} to {high}, got {value!r}.")
    return value


def check_keys(written: Mapping[str, object], valid: Iterable[str], where: str) -> None:
    """ConfigError if a table has a key that is not valid."""
    for key in written:
        if key not in valid:
            raise ConfigError(f"{where} has an unknown key {key!r}. {known(key, valid)}")
