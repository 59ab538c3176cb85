"""The key of embeddings: everything that determines their values, as named fields."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType

from nucseg_cache.errors import CacheError, EmbeddingNotFound, minimal_embed_command

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


def choose(
    location: str, keys: Mapping[Key, Sequence[str]], asked: Mapping[str, str], view: str, command: str = ""
) -> Key:
    """Return the only key, of those with their views, that matches the request and has the view.

    Args:
        location: the store, for messages.
        keys: every key with its views.
        asked: field -> value; other fields may have any value.
        view: the view that the key must have.
        command: what makes the embeddings, for the message; by default as far as the request tells it.

    Raises:
        EmbeddingNotFound: none or several match; the message lists the candidates and how they differ.
    """
    matching = [key for key, views in keys.items() if key.answers(asked) and view in views]
    if len(matching) == 1:
        return matching[0]
    raise EmbeddingNotFound(
        _several(location, asked, matching)
        if matching
        else _none(location, keys, asked, view, command or minimal_embed_command(location, asked))
    )


def _none(location: str, keys: Mapping[Key, Sequence[str]], asked: Mapping[str, str], view: str, command: str) -> str:
    if not keys:
        return f"{location} has no embeddings yet, asked for {label(asked)}. Run `{command}` first."
    candidates = "".join(
        f"\n  {key.hash}: {label(key.fields)}" + "".join(f"\n    {line}" for line in _lines(key, views, asked, view))
        for key, views in keys.items()
    )
    return (
        f"no embeddings in {location} match the request ({label(asked)}). Cached are:{candidates}\n"
        f"Ask for cached ones, or add the new ones with `{command}`."
    )


def _lines(key: Key, views: Sequence[str], asked: Mapping[str, str], view: str) -> list[str]:
    of_view = [] if view in views else [f"view: cached {', '.join(views) or 'nothing'}, asked for {view}"]
    return differences(key.fields, asked) + of_view


def _several(location: str, asked: Mapping[str, str], matching: Sequence[Key]) -> str:
    names = sorted({name for key in matching for name in key.fields})
    differing = [name for name in names if len({key.fields.get(name) for key in matching}) > 1]
    candidates = "".join(
        f"\n  {key.hash}: {label({name: key.fields.get(name, 'nothing') for name in differing})}" for key in matching
    )
    return (
        f"{len(matching)} embeddings in {location} match the request ({label(asked)}); they differ in:{candidates}\n"
        "Select one by these fields."
    )
