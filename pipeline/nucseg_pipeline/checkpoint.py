"""Files that are either whole or not there, and the checkpoints of a run.

A checkpoint holds tensors and plain values only and is read with weights_only, so it cannot carry code.
"""

import os
import zipfile
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import torch

from nucseg.errors import ConfigError, NucsegError

FORMAT = 1
"""Number of the checkpoint format."""


class TrainingError(NucsegError):
    """Training cannot go on; what was finished is kept."""


def write_whole(path: Path, content: bytes) -> None:
    """Write a file under a temporary name, bring it to the disk, then give it its name.

    Whoever reads, and whoever is killed, sees the old content or the new one. Raises TrainingError where the file
    cannot be written.
    """
    temporary = path.with_name(f".{path.name}.part")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise TrainingError(
            f"{path} cannot be written: {error.strerror or error}. Free some space or mend the permission, then "
            "run the same command again (`nucseg train` with --resume): the last checkpoint is whole."
        ) from error


def save_checkpoint(path: Path, content: Mapping[str, Any], inputs: str) -> None:
    """Write tensors and plain values (nested in dicts and lists), and the digest of what the run is made from."""
    buffer = BytesIO()
    torch.save({"format": FORMAT, "inputs": inputs, **content}, buffer)
    write_whole(path, buffer.getvalue())


def load_checkpoint(path: Path, inputs: str, option: str = "--run") -> dict[str, Any]:
    """Read a checkpoint of a run made from these inputs onto the CPU.

    Args:
        path: of the file.
        inputs: digest of what the run is made from.
        option: of the command line, that names another folder.

    Raises:
        ConfigError: the file is missing, truncated, of another format or run, or holds more than plain values.
    """
    try:
        whole = BytesIO(path.read_bytes())
        _check_crcs(whole)
        content = torch.load(whole, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ConfigError(f"There is no {path}. Train the run again in another folder ({option}).") from None
    except Exception as error:  # torch raises whatever the damaged bytes lead to
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__).rstrip(".")
        raise ConfigError(
            f"The checkpoint {path} cannot be read: {reason}. It is truncated or not a checkpoint. "
            "Bring the file back from a copy, or delete the folder of the run and train again."
        ) from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        found = content.get("format") if isinstance(content, dict) else type(content).__name__
        raise ConfigError(
            f"The checkpoint {path} has format {found!r}, this version reads {FORMAT}. "
            f"Read it with the version that wrote it, or train the run again in another folder ({option})."
        )
    if content.get("inputs") != inputs:
        raise ConfigError(
            f"The checkpoint {path} is of another run: it was trained on other inputs than inputs.json beside it "
            f"records. Bring the right file back, or train the run again in another folder ({option})."
        )
    return content


def _check_crcs(file: BytesIO) -> None:
    """Raise ValueError where a part of a file is not what its CRC says: torch writes CRCs and never looks at them."""
    with zipfile.ZipFile(file) as parts:
        damaged = parts.testzip()
    if damaged is not None:
        raise ValueError(f"the CRC of {damaged} in it is wrong.")
    file.seek(0)


def _sync_folder(folder: Path) -> None:
    """Bring a rename to the disk; some file systems cannot, and then it comes there when it comes."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:
        pass
    finally:
        os.close(descriptor)
