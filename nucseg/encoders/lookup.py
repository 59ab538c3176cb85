"""Find the encoder that made some embeddings: by the recorded identity, which has the digest of its weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from nucseg.encoders.architectures import ARCHITECTURES
from nucseg.encoders.base import Encoder
from nucseg.encoders.factory import open_encoder
from nucseg.encoders.student import shipped_student
from nucseg.encoders.student.metadata import read_origin
from nucseg.encoders.weights import WeightsFile, weights_folders
from nucseg.errors import EncoderError

CHECKPOINT_PATTERNS = ("*.pth", "*.pt")

FILE_PATTERNS = {"onnx": ("*.onnx",), "student": ("*.safetensors",)}
"""File names of encoders that are not checkpoints."""


def open_recorded(
    identity: Mapping[str, str],
    *,
    weights: Path | None = None,
    hints: Sequence[Path] = (),
    device: str = "auto",
    threads: int | None = None,
    batch_size: int | None = None,
) -> Encoder:
    """Open the encoder that made some embeddings.

    Args:
        identity: its recorded identity: architecture, weights, precision and more.
        weights: its file; None looks at the hints, then in the weights folders.
        hints: earlier locations of the file.
        device: as for `open_encoder`.
        threads: as for `open_encoder`.
        batch_size: as for `open_encoder`.

    Raises:
        EncoderError: the file is not found or has another digest, or the opened encoder has another identity.
    """
    architecture = identity.get("architecture", "")
    file = None if architecture == "random" else _find_file(identity, weights, hints)
    spec = f"random:{identity.get('seed', '0')}" if architecture == "random" else architecture
    encoder = open_encoder(
        spec,
        weights=file,
        precision=identity.get("precision", "auto"),
        device=device,
        threads=threads,
        batch_size=batch_size,
    )
    _check_same(identity, encoder.identity)
    return encoder


def images_learned(identity: Mapping[str, str], hints: Sequence[Path] = ()) -> frozenset[str]:
    """The images a student was distilled from: the first `IMAGE_DIGITS` hexadecimal digits of each image's digest.

    Empty for other encoders, which were not trained on images of ours, and if the student's file is not found.
    """
    if identity.get("architecture") != "student":
        return frozenset()
    try:
        return read_origin(_find_file(identity, None, hints)).learned_images
    except EncoderError:
        return frozenset()


def _find_file(identity: Mapping[str, str], given: Path | None, hints: Sequence[Path]) -> Path:
    digest = identity.get("weights", "")
    if given is not None:
        found = WeightsFile.of(given).digest
        if found != digest:
            raise EncoderError(
                f"{given} is not the encoder that the network was trained with: its xxh128 is {found}, expected "
                f"{digest} ({identity.get('architecture')}). Give the file of that digest with --weights, or leave it "
                "out to search for it."
            )
        return given
    candidates = list(_candidates(identity.get("architecture", ""), hints))
    for path in candidates:
        if path.is_file() and WeightsFile.of(path).digest == digest:
            return path
    folders = ", ".join(str(folder) for folder in weights_folders())
    raise EncoderError(
        f"The weights of the encoder {identity.get('architecture')} with the xxh128 {digest} are in none of {folders} "
        f"({len(candidates)} files checked). Put the file there ($NUCSEG_WEIGHTS names the first folder), or give it "
        "with --weights FILE."
    )


def _candidates(architecture: str, hints: Sequence[Path]) -> Iterator[Path]:
    """Files that may have the weights, the likeliest first: digesting gigabytes takes seconds."""
    published = ARCHITECTURES.get(architecture)
    official = [folder / published.file_name for folder in weights_folders()] if published else []
    if architecture == "student":
        official = [shipped_student()]
    others = [
        path
        for folder in weights_folders()
        for pattern in FILE_PATTERNS.get(architecture, CHECKPOINT_PATTERNS)
        for path in sorted(folder.glob(pattern))
    ]
    yield from dict.fromkeys([*hints, *official, *others])


def _check_same(recorded: Mapping[str, str], opened: Mapping[str, str]) -> None:
    differing = [
        f"  {name}: recorded {recorded[name][:40]}, opened {value[:40]}"
        for name, value in opened.items()
        if name in recorded and recorded[name] != value
    ]
    if differing:
        raise EncoderError(
            "\n".join(["The encoder differs from the one whose embeddings the network was trained with:", *differing])
            + "\nUse the version of nucseg that made the embeddings, or embed and train again."
        )
