"""Find an encoder's weights on disk and identify them by their digest; needs no torch."""

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
"""Number of bytes read at a time when digesting a file."""


@dataclass(frozen=True)
class WeightsFile:
    """A weights file and the digest that represents it in an encoder's identity."""

    path: Path
    """Location of the file."""

    digest: str
    """xxh128 of its contents, hexadecimal."""

    stamp: tuple[int, int, int]
    """Inode, size and modification time when it was digested."""

    @classmethod
    def of(cls, path: Path) -> WeightsFile:
        """Digest a file; EncoderError if it is missing, a folder or unreadable."""
        try:
            stamp = _stamp(path)
            return cls(path, _digest(path), stamp)
        except OSError as error:
            raise EncoderError(
                f"Cannot read weights {path}: {error.strerror}. Name a readable file (--weights or onnx:FILE)."
            ) from error

    def check_unchanged(self) -> None:
        """Raise EncoderError if the file is no longer the one that was digested."""
        if not self.path.is_file() or _stamp(self.path) != self.stamp:
            raise EncoderError(
                f"{self.path} changed while it was read, so its digest may not belong to the loaded weights. "
                "Wait until it is completely written, then start again."
            )


def find_weights(architecture: str, given: Path | None) -> WeightsFile:
    """Return the checkpoint of a published encoder: the given one, or the official one found by its name.

    Looks in $NUCSEG_WEIGHTS, then in the user cache folder. A file found by name must be the official one; a given
    file may be any, because its digest distinguishes its embeddings.

    Raises:
        EncoderError: no file is found or it cannot be read, or a file with the official name has another digest.
    """
    if given is not None:
        return WeightsFile.of(given)
    published = ARCHITECTURES[architecture]
    found = [path for folder in weights_folders() if (path := folder / published.file_name).is_file()]
    if not found:
        raise EncoderError(_not_found(architecture, published))
    file = WeightsFile.of(found[0])
    if file.digest != published.file_digest:
        raise EncoderError(
            f"{file.path} is not the official {published.file_name}: its xxh128 is {file.digest}, expected "
            f"{published.file_digest}. Move it away and run `nucseg fetch {architecture}`, or give it with --weights "
            "if it is meant to differ."
        )
    return file


def weights_folders() -> tuple[Path, ...]:
    """Folders searched for checkpoints, in this order."""
    own = os.environ.get("NUCSEG_WEIGHTS")
    folders = (home_expanded(own),) if own else ()
    return (*folders, user_cache_path("nucseg") / "weights")


def _not_found(architecture: str, published: PublishedVit) -> str:
    folders = ", ".join(str(folder) for folder in weights_folders())
    return (
        f"No weights for {architecture}: {published.file_name} is not in {folders}. Run `nucseg fetch {architecture}` "
        f"to download it, or download {published.url} into one of these folders ($NUCSEG_WEIGHTS names the first), or "
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
