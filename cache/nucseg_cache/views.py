"""Views of the embeddings: their name, how their images were made, and whether they keep these images."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nucseg_cache.errors import CacheError, ViewDiffers
from nucseg_cache.key import differences


@dataclass(frozen=True)
class ViewSpec:
    """A view as requested."""

    location: str
    """The store, for messages."""
    name: str
    side_px: int
    """Side of the store's prepared samples, in pixels."""
    described: Mapping[str, str] | None = None
    """Everything that determines the pixels of the view's images; None accepts the view as it is."""
    images: bool = False
    """Whether each row of a new view keeps its prepared image, because its colours differ from the sample's."""

    def __post_init__(self) -> None:
        if not self.name or "." in self.name or "/" in self.name:
            raise CacheError(
                f"the name of a view has letters, digits and hyphens, for example `identity`; got {self.name!r}"
            )

    @property
    def attributes(self) -> dict[str, Any]:
        """The attributes that are sealed with a new view."""
        described = {"described": dict(self.described)} if self.described else {}
        return {"view": self.name, **described, **({"images": True} if self.images else {})}

    def check_attributes(self, attributes: Mapping[str, Any], key_hash: str) -> None:
        """Raise ViewDiffers if the view with these attributes was made in another way than requested."""
        if self.described is None:
            return
        cached = {**attributes.get("described", {}), "images of its own": _yes(attributes.get("images"))}
        asked = {**self.described, "images of its own": _yes(self.images)}
        lines = differences(cached, {**dict.fromkeys(cached, "nothing"), **asked})
        if lines:
            raise ViewDiffers(
                f"the view {self.name} in {self.location} was made differently:\n  " + "\n  ".join(lines) + "\n"
                "Give the new recipe another name to keep both views, or delete the old one with "
                f"`nucseg cache prune {shlex.quote(self.location)} --key {key_hash}/{self.name}`."
            )


def _yes(value: object) -> str:
    return "yes" if value else "no"
