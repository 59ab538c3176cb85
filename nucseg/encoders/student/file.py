"""A student's file: its weights in safetensors, and its origin in their metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from nucseg.encoders.student.metadata import FORMAT, Origin, read_origin
from nucseg.encoders.student.network import StudentNetwork
from nucseg.encoders.student.sizes import SIZES, StudentShape
from nucseg.errors import EncoderError


def student_bytes(network: StudentNetwork, origin: Origin) -> bytes:
    """The bytes of a student's file, identical for the same weights and origin: float16, folded."""
    metadata = {FORMAT: json.dumps(asdict(origin), sort_keys=True)}
    state = {name: value.half().contiguous() for name, value in network.state_dict().items()}
    content: bytes = save(state, metadata=metadata)
    return content


def read_student(path: Path) -> tuple[StudentNetwork, Origin]:
    """Read the network of a file, in float32 and evaluation mode, and its origin.

    Raises:
        EncoderError: the file is not a student, truncated, or of another format.
    """
    origin = read_origin(path)
    state = load_file(path)
    network = StudentNetwork(_shape(origin, path), folded=True)
    _check(state, network.state_dict(), path)
    network.load_state_dict({name: value.float() for name, value in state.items()})
    return network.eval(), origin


def _shape(origin: Origin, path: Path) -> StudentShape:
    if origin.size not in SIZES:
        raise EncoderError(
            f"{path} is a student of size {origin.size!r}. Known: {', '.join(SIZES)}. Use the version of nucseg that "
            "wrote it."
        )
    return SIZES[origin.size]


def _check(state: Mapping[str, Tensor], expected: Mapping[str, Tensor], path: Path) -> None:
    wrong = sorted(
        name
        for name in {*state, *expected}
        if name not in state or name not in expected or state[name].shape != expected[name].shape
    )
    broken = sorted(name for name, value in state.items() if not bool(torch.isfinite(value.float()).all()))
    if wrong or broken:
        raise EncoderError(
            f"{path} does not fit a student of its size: {len(wrong)} weights missing, unknown or of another shape, "
            f"{len(broken)} not finite, the first is {(wrong + broken)[0]}. Copy the file again, or repeat the "
            "distillation."
        )
