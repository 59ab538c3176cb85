"""Recipes in TOML, which come from others too: nothing in one of them can take all memory or all time."""

import re
import tomllib
from pathlib import Path
from typing import Any

from nucseg.errors import ConfigError
from nucseg.paths import home_expanded

MOST_BYTES = 1 << 20
"""Recipes have some lines."""

_DEEP_KEY = re.compile(rb"""(?<![\w"'-])(?:[\w"'-]++[ \t]*+\.[ \t]*+){50}""")
"""A key of so many dots: the time that the parser takes for it grows with their square."""


def read_toml(path: Path | str) -> bytes:
    """What stands in a recipe's file; of one without an end, such as a device, no more is read than a recipe can be.

    Raises ConfigError where it is too large, and what `open` raises: OSError, and ValueError for a path with a NUL.
    """
    with home_expanded(path).open("rb") as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise ConfigError(
            f"{path} is larger than {MOST_BYTES >> 20} MiB, and a recipe is some lines of TOML. Name another file."
        )
    return content


def parse_toml(content: bytes, what: str) -> dict[str, Any]:
    """The tables of a recipe, which `what` names in errors, as in "The recipe mine.toml". Raises ConfigError."""
    if _DEEP_KEY.search(content):
        raise ConfigError(f"{what} has a key of more than 50 parts, which no recipe needs. Mend the file.")
    try:
        return tomllib.loads(content.decode("utf-8-sig"))  # as some editors begin every file
    except (ValueError, RecursionError) as error:  # not UTF-8, not TOML, a number of too many digits
        raise ConfigError(f"{what} is not TOML: {error}. Mend the file.") from None
