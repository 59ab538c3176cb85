"""Finding an encoder's weights on disk, and knowing them by their digest; needs no torch."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import xxhash
from platformdirs import user_cache_path

from nucseg.encoders.architectures import ARCHITECTURES, PublishedVit
from nucseg.errors import EncoderError
from nucseg.paths import home_expanded, opened_file

READ_BYTES = 1 << 24
"""How much of a file is digested at a time."""


@dataclass(frozen=True)
class WeightsFile:
    """A file of weights and the digest that stands for it in an encoder's identity."""

    path: Path
    """Where it lies."""

    digest: str
    """xxh128 of its contents, hexadecimal."""

    stamp: tuple[int, int, int]
    """Inode, size and time of change when it was digested."""

    @classmethod
    def of(cls, path: Path) -> WeightsFile:
        """Digest a file; EncoderError where it is missing, a folder or unreadable."""
        try:
            stamp = _stamp(path)
            return cls(path, _digest(path), stamp)
        except OSError as error:
            raise EncoderError(
                f"Cannot read weights {path}: {error.strerror}. Give --weights a readable file."
            ) from error

    def check_unchanged(self) -> None:
        """Raise EncoderError if the file is no longer the one that was digested."""
        if not self.path.is_file() or _stamp(self.path) != self.stamp:
            raise EncoderError(
                f"{self.path} changed while it was read, so its digest may not be that of the weights loaded. "
                "Wait until it is written, then start again."
            )


def find_weights(architecture: str, given: Path | None) -> WeightsFile:
    """Return the checkpoint of a published encoder: the one given, else the official one found by its name.

    It is looked for in $NUCSEG_WEIGHTS, then in the user cache folder. One found by name must be the official one;
    one given may be any, and its digest keeps its embeddings apart.

    Raises:
        EncoderError: nothing found, not readable, or a file of an official name with another digest.
    """
    if given is not None:
        return WeightsFile.of(given)
    published = ARCHITECTURES[architecture]
    found = [path for folder in weights_folders() if (path := folder / published.file_name).is_file()]
    if not found:
        raise EncoderError(_not_found(architecture, published))
    return _pinned(WeightsFile.of(found[0]), architecture, published)


def weights_folders() -> tuple[Path, ...]:
    """Folders in which checkpoints are looked for, first match first."""
    own = os.environ.get("NUCSEG_WEIGHTS")
    folders = (home_expanded(own),) if own else ()
    return (*folders, user_cache_path("nucseg") / "weights")


def _pinned(file: WeightsFile, architecture: str, published: PublishedVit) -> WeightsFile:
    if file.digest != published.file_digest:
        raise EncoderError(
            f"{file.path} is not the official {published.file_name}: its xxh128 is {file.digest}, expected "
            f"{published.file_digest}. Move it away and run `nucseg fetch {architecture}`, or give it with --weights "
            "if it is meant to differ."
        )
    return file


def _not_found(architecture: str, published: PublishedVit) -> str:
    looked = ", ".join(str(folder) for folder in weights_folders())
    return (
        f"No weights for {architecture}: {published.file_name} is not in {looked}. `nucseg fetch {architecture}` "
        f"downloads it; or download {published.url} into one of these folders ($NUCSEG_WEIGHTS names the first), or "
        "give a checkpoint with --weights FILE."
    )


def _digest(path: Path) -> str:
    digest = xxhash.xxh128()
    with opened_file(path) as file:
        while block := file.read(READ_BYTES):
            digest.update(block)
    return str(digest.hexdigest())


def _stamp(path: Path) -> tuple[int, int, int]:
    status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns
