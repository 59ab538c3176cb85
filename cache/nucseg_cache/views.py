"""What a view of the embeddings is: its name, how its images were made, and whether it keeps them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nucseg_cache.errors import CacheError, ViewDiffers
from nucseg_cache.key import differences


@dataclass(frozen=True)
class ViewSpec:
    """One view as it is asked for."""

    location: str
    """The store, for messages."""
    name: str
    side_px: int
    """Side of the store's prepared samples, in pixels."""
    described: Mapping[str, str] | None = None
    """Everything that decides the pixels of the view's images; None takes the view as it is."""
    images: bool = False
    """Whether each row of a new view keeps its prepared image: its colours are not those of the sample."""

    def __post_init__(self) -> None:
        if not self.name or "." in self.name or "/" in self.name:
            raise CacheError(
                f"a view is named by letters, digits and hyphens, for example `identity`; got {self.name!r}"
            )

    @property
    def attributes(self) -> dict[str, Any]:
        """What is sealed with a new view."""
        described = {"described": dict(self.described)} if self.described else {}
        return {"view": self.name, **described, **({"images": True} if self.images else {})}

    def check_attributes(self, attributes: Mapping[str, Any], key_hash: str) -> None:
        """Raise ViewDiffers where the view with these attributes was made in another way than the one asked for."""
        if self.described is None:
            return
        cached = {**attributes.get("described", {}), "images of its own": _yes(attributes.get("images"))}
        asked = {**self.described, "images of its own": _yes(self.images)}
        lines = differences(cached, {**dict.fromkeys(cached, "nothing"), **asked})
        if lines:
            raise ViewDiffers(
                f"the view {self.name} in {self.location} was made differently:\n  " + "\n  ".join(lines) + "\n"
                "Give the new recipe another name, so that both live beside one another, or delete the old view with "
                f"`nucseg cache prune {self.location} --key {key_hash}/{self.name}`."
            )


def _yes(value: object) -> str:
    return "yes" if value else "no"
