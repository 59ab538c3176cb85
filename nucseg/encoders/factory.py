"""Open an encoder by its name, or check the name and compute parts of its identity without loading it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nucseg.encoders.architectures import ARCHITECTURES, PRECISIONS
from nucseg.encoders.base import Encoder
from nucseg.encoders.student import shipped_student
from nucseg.encoders.weights import WeightsFile, find_weights
from nucseg.errors import ConfigError, known
from nucseg.paths import home_expanded

BY_FILE = ("onnx", "student")
"""Encoders whose spec may name their file after a colon."""


@dataclass(frozen=True, kw_only=True)
class EncoderSpec:
    """A spec such as `vit_b`, `onnx:FILE`, `student` or `random:SEED`, parsed and checked."""

    architecture: str
    """A published encoder, `onnx`, `student` or `random`."""

    weights: Path | None
    """The weights file, if one was given; always set for `onnx` and `student`."""

    seed: int = 0
    """The seed of `random`; unused by the others."""

    @classmethod
    def parse(cls, spec: str, weights: Path | None) -> EncoderSpec:
        """Parse a spec.

        Raises:
            ConfigError: the name is unknown, a part is missing, or weights are given to an encoder that reads none.
        """
        name, _, argument = spec.partition(":")
        if name == "onnx":
            return cls(architecture=name, weights=_onnx_file(argument, weights))
        if name == "student":
            return cls(architecture=name, weights=_student_file(argument, weights))
        if name not in ARCHITECTURES and name != "random":
            raise ConfigError(f"Encoder {spec!r} is not known. {known(spec, encoder_names())}")
        if name == "random":
            _refuse(weights is not None, "Encoder 'random' draws its weights and takes no --weights.")
            return cls(architecture=name, weights=None, seed=_seed(argument))
        _refuse(":" in spec, f"Encoder {spec!r}: {name} takes nothing after a colon; give a file with --weights.")
        return cls(architecture=name, weights=home_expanded(weights) if weights else None)


def encoder_names() -> tuple[str, ...]:
    """Return the valid specs, with FILE and SEED as placeholders."""
    return (*ARCHITECTURES, "student", "student:FILE", "onnx:FILE", "random", "random:SEED")


def precision_names() -> tuple[str, ...]:
    """Return the valid precisions."""
    return ("auto", *PRECISIONS)


def named_file(spec: str) -> str:
    """The FILE of `onnx:FILE` or `student:FILE`; empty for other specs."""
    name, _, file = spec.partition(":")
    return file if name in BY_FILE else ""


def asked_identity(spec: str, *, weights: Path | None = None, precision: str = "auto") -> dict[str, str]:
    """Return the fields of an encoder's identity that the arguments determine, without loading it or torch.

    Cached embeddings match with any value in the other fields.

    Raises:
        ConfigError: `open_encoder` would refuse the spec.
        EncoderError: the weights file cannot be read.
    """
    asked = EncoderSpec.parse(spec, weights)
    _check_precision(precision)
    identity = {"architecture": asked.architecture}
    if asked.weights is not None:
        identity["weights"] = WeightsFile.of(asked.weights).digest
    if asked.architecture == "random":
        identity["seed"] = str(asked.seed)
    if precision != "auto":
        identity["precision"] = precision
    return identity


def check_spec(spec: str, *, weights: Path | None = None, precision: str = "auto") -> None:
    """Raise ConfigError if `open_encoder` would refuse the arguments; reads no file."""
    EncoderSpec.parse(spec, weights)
    _check_precision(precision)


def check_encoder(spec: str, *, weights: Path | None = None, precision: str = "auto") -> None:
    """Raise the errors of `open_encoder` that its arguments and the header of its file show, before long work for it.

    Raises:
        ConfigError: an option has an unknown value.
        EncoderError: the file is missing or of another kind, or the library that reads it is not installed.
    """
    asked = EncoderSpec.parse(spec, weights)
    _check_precision(precision)
    if asked.architecture == "onnx" and asked.weights is not None:
        from nucseg.encoders.onnx import check_onnx

        check_onnx(asked.weights)
    elif asked.architecture == "student" and asked.weights is not None:
        from nucseg.encoders.student.metadata import read_origin

        read_origin(WeightsFile.of(asked.weights).path)
    elif asked.architecture in ARCHITECTURES:
        from nucseg.encoders.checkpoint import check_architecture, read_encoder_state

        file = find_weights(asked.architecture, asked.weights).path
        check_architecture(read_encoder_state(file), asked.architecture, file)


def open_encoder(
    spec: str,
    *,
    weights: Path | None = None,
    device: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    batch_size: int | None = None,
) -> Encoder:
    """Open an encoder, ready to encode.

    Args:
        spec: `vit_b`, `vit_l`, `vit_h`, `student`, `student:FILE`, `onnx:FILE`, `random` or `random:SEED`.
        weights: checkpoint of a ViT instead of the official one; for `onnx` and `student` the same as after the colon.
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.
        precision: `auto`, `float32`, `bfloat16` or `float16`; auto is bfloat16 on CUDA, otherwise float32.
        threads: number of CPU threads, with torch for the whole process; None keeps the current number.
        batch_size: images per forward pass; None chooses by device and free memory.

    Raises:
        ConfigError: an option has an unknown value, or this encoder does not support it.
        EncoderError: the weights are missing, damaged or of another architecture; the device does not exist.
    """
    asked = EncoderSpec.parse(spec, weights)
    _check_precision(precision)
    _check_count("threads", threads)
    _check_count("batch_size", batch_size)
    if asked.architecture == "onnx" and asked.weights is not None:
        from nucseg.encoders.onnx import open_onnx

        return open_onnx(asked.weights, device=device, precision=precision, threads=threads, batch_size=batch_size)
    return _open_torch(asked, device, precision, threads, batch_size)


def _open_torch(
    asked: EncoderSpec, device: str, precision: str, threads: int | None, batch_size: int | None
) -> Encoder:
    # imported here because torch takes seconds to import, and an identity does not need it
    import torch

    from nucseg.encoders.device import choose_hardware
    from nucseg.encoders.random_vit import open_random
    from nucseg.encoders.sam import open_sam
    from nucseg.encoders.student.encoder import open_student

    if threads is not None:
        torch.set_num_threads(threads)
    hardware = choose_hardware(device, precision)
    if asked.architecture == "random":
        return open_random(asked.seed, hardware=hardware, batch_size=batch_size)
    if asked.architecture == "student":
        return open_student(asked.weights, hardware=hardware, batch_size=batch_size)
    return open_sam(asked.architecture, weights=asked.weights, hardware=hardware, batch_size=batch_size)


def _onnx_file(argument: str, weights: Path | None) -> Path:
    _refuse(bool(argument) == (weights is not None), "Encoder 'onnx' needs one file: onnx:FILE, or --weights FILE.")
    return home_expanded(weights or argument)


def _student_file(argument: str, weights: Path | None) -> Path:
    _refuse(
        bool(argument) and weights is not None, "Encoder 'student' reads one file: student:FILE, or --weights FILE."
    )
    return home_expanded(weights or argument) if weights or argument else shipped_student()


def _seed(argument: str) -> int:
    _refuse(bool(argument) and not argument.isdecimal(), f"random:{argument}: the seed must be a whole number from 0.")
    return int(argument or 0)


def _check_precision(precision: str) -> None:
    names = precision_names()
    _refuse(precision not in names, f"Precision {precision!r} is not known. {known(precision, names)}")


def _check_count(name: str, count: int | None) -> None:
    _refuse(count is not None and count < 1, f"{name} must be at least 1, got {count}.")


def _refuse(condition: bool, message: str) -> None:
    if condition:
        raise ConfigError(message)
