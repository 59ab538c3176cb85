"""Read recipes in TOML. Recipes are untrusted input: size and depth are limited."""

import re
import tomllib
from pathlib import Path
from typing import Any

from nucseg.errors import ConfigError
from nucseg.paths import home_expanded

MAX_BYTES = 1 << 20
"""Largest size of a recipe; real ones have a few dozen lines."""

_DEEP_KEY = re.compile(rb"""(?<![\w"'-])(?:[\w"'-]++[ \t]*+\.[ \t]*+){50}""")
"""A key with 50 dots or more: the parser's time grows with the square of their number."""


def read_toml(path: Path | str) -> bytes:
    """Read the file of a recipe, at most MAX_BYTES of it, since a device may have no end.

    Raises ConfigError if it is larger, and what `open` raises: OSError, and ValueError for a path with a NUL.
    """
    with home_expanded(path).open("rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise ConfigError(
            f"{path} is larger than {MAX_BYTES >> 20} MiB; a recipe is a few lines of TOML. Choose another file."
        )
    return content


def parse_toml(content: bytes, what: str) -> dict[str, Any]:
    """Parse a recipe into its tables. Raises ConfigError, which calls it `what`, as in "The recipe mine.toml"."""
    if _DEEP_KEY.search(content):
        raise ConfigError(f"{what} has a key with more than 50 parts, which no recipe needs. Correct the file.")
    try:
        return tomllib.loads(content.decode("utf-8-sig"))  # some editors write a byte order mark
    except (ValueError, RecursionError) as error:  # not UTF-8, not TOML, or a number with too many digits
        raise ConfigError(f"{what} is not TOML: {error}. Correct the file.") from None
