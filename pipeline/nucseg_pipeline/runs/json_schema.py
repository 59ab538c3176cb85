"""Whether what stands in a JSON file is what a dataclass may hold: files come from others, and are edited."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, get_args, get_origin, get_type_hints


def misfit(content: Mapping[str, Any], kind: type[Any]) -> str:
    """Name the first value that its field cannot hold; empty where there is none. Fields that are not there are fine.

    Understood are text, numbers (finite ones), and lists and mappings of them.
    """
    hints = get_type_hints(kind)
    for name in (field.name for field in fields(kind) if field.name in content):
        if not _fits(content[name], hints[name]):
            return f"{name} holds {_shortened(content[name])}"
    return ""


def _fits(value: Any, hint: Any) -> bool:
    kind, inner = get_origin(hint) or hint, get_args(hint)
    if kind is str or kind is int:
        return type(value) is kind
    if kind is float:
        return type(value) in (int, float) and _is_finite(value)
    if issubclass(kind, Mapping):
        return isinstance(value, dict) and all(_fits(one, inner[1]) for one in value.values())
    return isinstance(value, list) and all(_fits(one, inner[0]) for one in value)  # Sequence, tuple


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(float(value))
    except OverflowError:
        return False


def _shortened(value: object) -> str:
    try:
        text = repr(value)
    except ValueError:  # Python refuses to write out numbers of thousands of digits
        return "a number of too many digits"
    return text if len(text) < 80 else f"{text[:80]}..."
