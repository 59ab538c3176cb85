"""Digests of what a training is started with: its configuration, its split, and the code that trains."""

from __future__ import annotations

import hashlib
import json
import tomllib
from dataclasses import asdict
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from nucseg.data.splits import Split
from nucseg_pipeline.config import DistillConfig, TrainConfig
from nucseg_pipeline.config.recipe import to_toml

FREE_FIELDS = frozenset(
    {"cache", "encoder", "weights", "precision", "format", "device", "threads", "preload", "log", "run", "resume"}
)
"""Fields of `TrainConfig` in which a resumed run may differ: where and on what it runs. Whether the embeddings are
still the same is checked by their key."""

DISTILL_FREE_FIELDS = frozenset({"cache", "teacher", "weights", "precision", "format", "device", "threads", "out"})
"""The same of `DistillConfig`."""

LATER_FIELDS = {"photometric": "none", "tissue_only": False}
"""Fields of `TrainConfig` that earlier runs did not record, with the value that they were trained with. A field with
this value is left out of the digest, so that the digest of an earlier run stays valid."""

_PACKAGES = ("nucseg", "nucseg_cache", "nucseg_pipeline")
_CODE = ("*.py", "*.toml")


def free_fields(config: TrainConfig | DistillConfig) -> frozenset[str]:
    """The fields of a configuration in which a resumed training may differ."""
    return FREE_FIELDS if isinstance(config, TrainConfig) else DISTILL_FREE_FIELDS


def split_digest(parts: Split) -> str:
    """SHA-256, hexadecimal, of the ids of all parts in their order, with their protocol and notes."""
    return json_digest(asdict(parts))


def configuration_digest(config: TrainConfig | DistillConfig) -> str:
    """SHA-256, hexadecimal, of all fields that may not differ when a training is resumed.

    `epochs` of a run is not among them: a run may be made longer.
    """
    (table,) = tomllib.loads(to_toml(config)).values()
    free = free_fields(config) | ({"epochs"} if isinstance(config, TrainConfig) else set())
    counted = {name: value for name, value in table.items() if name not in free}
    return json_digest({name: value for name, value in counted.items() if LATER_FIELDS.get(name) != value})


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


def json_digest(value: object) -> str:
    """SHA-256, hexadecimal, of a value as canonical JSON."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()


def _folders(package: str) -> list[Path]:
    spec = find_spec(package)
    return [Path(location) for location in (spec and spec.submodule_search_locations) or ()]
