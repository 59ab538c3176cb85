"""Digests of what a run is started with: its configuration, its split, and the code that trains it."""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from nucseg.data.splits import Split
from nucseg_pipeline.config import TrainConfig
from nucseg_pipeline.config.recipe import to_toml

FREE_FIELDS = frozenset(
    {"cache", "encoder", "weights", "precision", "format", "device", "threads", "preload", "log", "run", "resume"}
)
"""Fields in which a resumed run may differ: where and on what it runs. Whether the embeddings are still the same is
asked of their key."""

_PACKAGES = ("nucseg", "nucseg_cache", "nucseg_pipeline")
_CODE = ("*.py", "*.toml")
_LENGTH = "epochs"
"""Not in the digest of a configuration: a run may be made longer."""


def split_digest(parts: Split) -> str:
    """SHA-256, hexadecimal, of the ids of all parts in their order, with their protocol and notes."""
    return _digest(asdict(parts))


def configuration_digest(config: TrainConfig) -> str:
    """SHA-256, hexadecimal, of all that stands in a run's config.toml and may not differ when it is resumed."""
    return recipe_digest(tomllib.loads(to_toml(config))["train"])


def recipe_digest(recipe: Mapping[str, object]) -> str:
    """As `configuration_digest`, from the table [train] as it stands in the file.

    Not from what the table is resolved to: options that a later version has do not stand there.
    """
    return _digest({name: value for name, value in recipe.items() if name not in FREE_FIELDS | {_LENGTH}})


@cache
def code_digest() -> str:
    """SHA-256, hexadecimal, of nucseg's own source files as they are installed, by name and content."""
    digest = hashlib.sha256()
    for package in _PACKAGES:
        for folder in _folders(package):
            for file in sorted(file for pattern in _CODE for file in folder.rglob(pattern)):
                content = file.read_bytes()
                digest.update(f"{package}/{file.relative_to(folder).as_posix()} {len(content)}\n".encode())
                digest.update(content)
    return digest.hexdigest()


def _folders(package: str) -> list[Path]:
    spec = find_spec(package)
    return [Path(place) for place in (spec and spec.submodule_search_locations) or ()]


def _digest(value: object) -> str:
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()
