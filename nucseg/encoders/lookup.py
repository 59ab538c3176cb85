"""From the identity of an encoder, as embeddings record it, back to the encoder, by the digest of its weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from nucseg.encoders.architectures import ARCHITECTURES
from nucseg.encoders.base import Encoder
from nucseg.encoders.factory import BY_FILE, open_encoder
from nucseg.encoders.student import shipped_student
from nucseg.encoders.student.metadata import read_origin
from nucseg.encoders.weights import WeightsFile, weights_folders
from nucseg.errors import EncoderError

_SUFFIXES = {"onnx": ("*.onnx",), "student": ("*.safetensors",)}
"""What the files of encoders other than checkpoints are called."""

_CHECKPOINTS = ("*.pth", "*.pt")


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
        identity: what is recorded of it: architecture, weights, precision and more.
        weights: its file; None looks at the hints, then in the folders of weights.
        hints: where the file was once.
        device: as `open_encoder` takes it.
        threads: likewise.
        batch_size: likewise.

    Raises:
        EncoderError: the file is not found, or is another one, or the encoder is not the one that is recorded.
    """
    architecture = identity.get("architecture", "")
    options = {"device": device, "threads": threads, "batch_size": batch_size}
    precision = identity.get("precision", "auto")
    if architecture == "random":
        spec, file = f"random:{identity.get('seed', '0')}", None
    else:
        file = _file(identity, weights, hints)
        spec = f"{architecture}:{file}" if architecture in BY_FILE else architecture
    encoder = open_encoder(
        spec,
        weights=None if architecture in BY_FILE else file,
        precision=precision,
        **options,  # type: ignore[arg-type]
    )
    _check_same(identity, encoder.identity)
    return encoder


def images_learned(identity: Mapping[str, str], hints: Sequence[Path] = ()) -> frozenset[str]:
    """What a student was distilled from: the first `IMAGE_DIGITS` hexadecimal digits of each image's digest.

    Empty for other encoders, which have seen none of our images, and where the student's file is not found.
    """
    if identity.get("architecture") != "student":
        return frozenset()
    try:
        return read_origin(_file(identity, None, hints)).learned_images
    except EncoderError:
        return frozenset()


def _file(identity: Mapping[str, str], given: Path | None, hints: Sequence[Path]) -> Path:
    digest = identity.get("weights", "")
    if given is not None:
        found = WeightsFile.of(given).digest
        if found != digest:
            raise EncoderError(
                f"{given} is another encoder than the network was trained with: its xxh128 is {found}, and {digest} is "
                f"recorded ({identity.get('architecture')}). Give the file of that digest with --weights, or leave it "
                "out to look for it."
            )
        return given
    looked = list(_candidates(identity.get("architecture", ""), hints))
    for path in looked:
        if path.is_file() and WeightsFile.of(path).digest == digest:
            return path
    folders = ", ".join(str(folder) for folder in weights_folders())
    raise EncoderError(
        f"The weights of the encoder {identity.get('architecture')} with the xxh128 {digest} are in none of {folders} "
        f"({len(looked)} files looked at). Put the file there ($NUCSEG_WEIGHTS names the first folder), or give it "
        "with --weights FILE."
    )


def _candidates(architecture: str, hints: Sequence[Path]) -> Iterator[Path]:
    """Files that may be it, the likeliest first: reading gigabytes for a digest takes seconds."""
    published = ARCHITECTURES.get(architecture)
    official = [folder / published.file_name for folder in weights_folders()] if published else []
    if architecture == "student":
        official = [shipped_student()]
    others = [
        path
        for folder in weights_folders()
        for pattern in _SUFFIXES.get(architecture, _CHECKPOINTS)
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
            "\n".join(["The encoder is not the one whose embeddings the network was trained with:", *differing])
            + "\nUse the version of nucseg that embedded, or embed and train anew."
        )
