"""The key of embeddings: everything that determines their values, as named fields."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType

from nucseg_cache.errors import CacheError

_DIGEST_DIGITS = 8


@dataclass(frozen=True)
class Key:
    """Everything that determines an embedding's values, as opaque named fields.

    Embeddings with equal keys are interchangeable within the tolerance of their precision. What does not change the
    values (versions, device, threads) is recorded with the key but is not part of it.
    """

    fields: Mapping[str, str]
    """Field -> value, for example `{"architecture": "vit_b", "weights": "6923c33d...", "format": "f16"}`."""

    def __post_init__(self) -> None:
        for name, value in self.fields.items():
            if not (isinstance(name, str) and isinstance(value, str) and name and value):
                raise CacheError(f"a key's fields are non-empty strings by name, got {name!r}: {value!r}")
        if "format" not in self.fields:
            raise CacheError(f"a key needs a field 'format' for the storage format, got {sorted(self.fields)}")
        object.__setattr__(self, "fields", MappingProxyType(dict(sorted(self.fields.items()))))

    @cached_property
    def hash(self) -> str:
        """Sixteen hexadecimal digits that name the key's group in a store."""
        canonical = json.dumps(dict(self.fields), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]

    def __hash__(self) -> int:
        return hash(self.hash)

    def __reduce__(self) -> tuple[type[Key], tuple[dict[str, str]]]:
        return Key, (dict(self.fields),)  # a read-only mapping cannot be pickled

    def answers(self, asked: Mapping[str, str]) -> bool:
        """Whether this key has the requested value in every requested field."""
        return all(self.fields.get(name) == value for name, value in asked.items())


def differences(cached: Mapping[str, str], asked: Mapping[str, str]) -> list[str]:
    """One readable line for each requested field in which the cached key differs.

    >>> differences({"precision": "bfloat16"}, {"precision": "float32"})
    ['precision: cached bfloat16, asked for float32']
    """
    return [
        f"{name}: cached {_short(cached.get(name))}, asked for {_short(value)}"
        for name, value in sorted(asked.items())
        if cached.get(name) != value
    ]


def label(fields: Mapping[str, str]) -> str:
    """The fields in one line, with shortened digests."""
    return ", ".join(f"{name} {_short(value)}" for name, value in fields.items())


def _short(value: str | None) -> str:
    if value is None:
        return "nothing"
    is_digest = len(value) >= 2 * _DIGEST_DIGITS and all(c in "0123456789abcdef" for c in value)
    return value[:_DIGEST_DIGITS] if is_digest else value
