"""What a student was made from, as its file says; needs no torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from nucseg.errors import EncoderError

FORMAT = "nucseg-student-1"
"""Name of the one entry of the file's metadata: safetensors writes several in any order."""

IMAGE_DIGITS = 16
"""Hexadecimal digits of an image's digest that a student's file keeps."""


@dataclass(frozen=True)
class Origin:
    """What a student was made from."""

    size: str
    """Its name in `SIZES`."""
    teacher: Mapping[str, str]
    """The identity of the encoder that it imitates."""
    datasets: Mapping[str, Mapping[str, Any]]
    """Data set -> what was learned from it, and how well held-out images are imitated."""
    configuration: str
    """Digest of what it was distilled with."""

    @property
    def learned_images(self) -> frozenset[str]:
        """The first digits of the digest of each image that weights or epoch were chosen by."""
        return frozenset(one for told in self.datasets.values() for one in told.get("learned_images", ()))


def read_origin(path: Path) -> Origin:
    """What a student's file says of itself.

    Raises:
        EncoderError: it is no student's file, truncated, or of another format.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise EncoderError(
            f"{path} is no file of safetensors, or a damaged one: {error}. Give a file that `nucseg distill` wrote."
        ) from error
    if FORMAT not in metadata:
        raise EncoderError(
            f"{path} holds no student: its metadata are {sorted(metadata)}, expected {FORMAT!r}. Give a file that "
            "`nucseg distill` wrote."
        )
    try:
        origin = Origin(**json.loads(metadata[FORMAT]))
        _check(origin)
        return origin
    except (TypeError, ValueError, RecursionError) as error:
        raise EncoderError(
            f"{path} does not say what the student was made from: {error}. Copy the file again, or distill it anew."
        ) from None


def _check(origin: Origin) -> None:
    """Raise TypeError for what no student's file says."""
    texts = [origin.size, origin.configuration, *_table(origin.teacher, "teacher").values()]
    if not all(isinstance(text, str) for text in texts):
        raise TypeError("size, teacher and configuration are texts")
    for name, told in _table(origin.datasets, "datasets").items():
        images = _table(told, name).get("learned_images", [])
        if not (isinstance(images, list) and all(isinstance(one, str) for one in images)):
            raise TypeError("learned_images is a list of texts")
        cosine = told.get("centred_cosine")
        if cosine is not None and not (type(cosine) is float and type(told.get("n_test")) is int):
            raise TypeError("centred_cosine and n_test are numbers")


def _table(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(f"{name} is {value!r}, and no table")
    return value
