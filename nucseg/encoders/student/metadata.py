"""The origin of a student, as recorded in its file; needs no torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from nucseg.errors import EncoderError

FORMAT = "nucseg-student-1"
"""Key of the only entry in the file's metadata: safetensors does not keep the order of several."""

IMAGE_DIGITS = 16
"""Number of hexadecimal digits of an image's digest that a student's file records."""


@dataclass(frozen=True)
class Origin:
    """What a student was distilled from and how."""

    size: str
    """Its name in `SIZES`."""
    teacher: Mapping[str, str]
    """The identity of its teacher."""
    datasets: Mapping[str, Mapping[str, Any]]
    """Data set -> the images it was distilled from, and its scores on held-out images."""
    configuration: str
    """Digest of the configuration of its distillation."""

    @property
    def learned_images(self) -> frozenset[str]:
        """The first digits of the digest of each training and validation image."""
        return frozenset(digest for record in self.datasets.values() for digest in record.get("learned_images", ()))


def read_origin(path: Path) -> Origin:
    """Read the origin from a student's file, without its weights.

    Raises:
        EncoderError: the file is not a student, truncated, or of another format.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise EncoderError(
            f"{path} is not a safetensors file, or is damaged: {error}. Give a file written by `nucseg distill`."
        ) from error
    if FORMAT not in metadata:
        raise EncoderError(
            f"{path} is not a student: its metadata are {sorted(metadata)}, expected {FORMAT!r}. Give a file written "
            "by `nucseg distill`."
        )
    try:
        origin = Origin(**json.loads(metadata[FORMAT]))
        _check(origin)
        return origin
    except (TypeError, ValueError, RecursionError) as error:
        raise EncoderError(
            f"The origin recorded in {path} is not valid: {error}. Copy the file again, or repeat the distillation."
        ) from None


def _check(origin: Origin) -> None:
    """Raise TypeError if a field has another type than `nucseg distill` writes."""
    strings = [origin.size, origin.configuration, *_mapping(origin.teacher, "teacher").values()]
    if not all(isinstance(string, str) for string in strings):
        raise TypeError("size, teacher and configuration must be strings")
    for name, record in _mapping(origin.datasets, "datasets").items():
        digests = _mapping(record, name).get("learned_images", [])
        if not (isinstance(digests, list) and all(isinstance(digest, str) for digest in digests)):
            raise TypeError("learned_images must be a list of strings")
        cosine = record.get("centred_cosine")
        if cosine is not None and not (type(cosine) is float and type(record.get("n_test")) is int):
            raise TypeError("centred_cosine and n_test must be numbers")


def _mapping(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(f"{name} must be a mapping, got {value!r}")
    return value
