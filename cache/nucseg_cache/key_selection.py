"""Which of several embeddings was asked for, and what to say where that is not clear."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nucseg_cache.errors import EmbeddingNotFound
from nucseg_cache.key import Key, differences, label


def choose(location: str, keys: Mapping[Key, Sequence[str]], asked: Mapping[str, str], view: str) -> Key:
    """The one key that answers what is asked and has the view.

    Args:
        location: of the store, for the message.
        keys: each key with its views.
        asked: field -> value.
        view: the view that must be there.

    Raises:
        EmbeddingNotFound: none does, or several do; the message lists the candidates and how they differ.
    """
    answering = [key for key, views in keys.items() if key.answers(asked) and view in views]
    if len(answering) == 1:
        return answering[0]
    raise EmbeddingNotFound(
        _several(location, asked, answering) if answering else _none(location, keys, asked, view),
    )


def _none(location: str, keys: Mapping[Key, Sequence[str]], asked: Mapping[str, str], view: str) -> str:
    if not keys:
        return f"{location} holds no embeddings yet, asked for {label(asked)}. Run `nucseg embed` first."
    candidates = "".join(
        f"\n  {key.hash}: {label(key.fields)}" + "".join(f"\n    {line}" for line in _lines(key, views, asked, view))
        for key, views in keys.items()
    )
    return (
        f"no embeddings in {location} are what was asked for ({label(asked)}). There are:{candidates}\n"
        "Ask for cached ones, or run `nucseg embed` with these options to add the new ones beside them."
    )


def _lines(key: Key, views: Sequence[str], asked: Mapping[str, str], view: str) -> list[str]:
    of_view = [] if view in views else [f"view: cached {', '.join(views) or 'nothing'}, asked for {view}"]
    return differences(key.fields, asked) + of_view


def _several(location: str, asked: Mapping[str, str], answering: Sequence[Key]) -> str:
    names = sorted({name for key in answering for name in key.fields})
    differing = [name for name in names if len({key.fields.get(name) for key in answering}) > 1]
    candidates = "".join(
        f"\n  {key.hash}: {label({name: key.fields.get(name, 'nothing') for name in differing})}" for key in answering
    )
    return (
        f"{len(answering)} embeddings in {location} answer to {label(asked)}; they differ in:{candidates}\n"
        "Ask for one of them by these fields."
    )
