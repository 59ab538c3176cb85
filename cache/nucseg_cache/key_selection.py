"""Select the requested embeddings among those of a store, or explain why the request is ambiguous."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nucseg_cache.errors import EmbeddingNotFound
from nucseg_cache.key import Key, differences, label


def choose(location: str, keys: Mapping[Key, Sequence[str]], asked: Mapping[str, str], view: str) -> Key:
    """Return the only key that matches the request and has the view.

    Args:
        location: the store, for messages.
        keys: each key with its views.
        asked: field -> value.
        view: the view that the key must have.

    Raises:
        EmbeddingNotFound: none or several match; the message lists the candidates and how they differ.
    """
    matching = [key for key, views in keys.items() if key.answers(asked) and view in views]
    if len(matching) == 1:
        return matching[0]
    raise EmbeddingNotFound(_several(location, asked, matching) if matching else _none(location, keys, asked, view))


def _none(location: str, keys: Mapping[Key, Sequence[str]], asked: Mapping[str, str], view: str) -> str:
    if not keys:
        return f"{location} has no embeddings yet, asked for {label(asked)}. Run `nucseg embed` first."
    candidates = "".join(
        f"\n  {key.hash}: {label(key.fields)}" + "".join(f"\n    {line}" for line in _lines(key, views, asked, view))
        for key, views in keys.items()
    )
    return (
        f"no embeddings in {location} match the request ({label(asked)}). Cached are:{candidates}\n"
        "Ask for cached ones, or run `nucseg embed` with these options to add the new ones."
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
