"""Check the content of a JSON file against a dataclass: files come from other people, and are edited."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nucseg.errors import ConfigError
from nucseg_pipeline.config.recipe import checked


def misfit(content: Mapping[str, Any], kind: type[Any]) -> str:
    """Say which value its field cannot hold, the first one; empty if all fit. Fields may be missing."""
    try:
        checked(kind, content, "the file")
    except ConfigError as error:
        return str(error).removesuffix(".")
    return ""
