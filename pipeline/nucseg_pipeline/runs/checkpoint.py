"""Checkpoints of a training: tensors and plain values only, read with weights_only, so that they cannot carry code."""

import zipfile
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import torch

from nucseg.errors import ConfigError
from nucseg_pipeline.files.atomic import write_whole

FORMAT = 1
"""Number of the checkpoint format."""


def save_checkpoint(path: Path, content: Mapping[str, Any], inputs: str) -> None:
    """Write tensors and plain values, nested in dicts and lists, with the digest of what the training is made from.

    Raises:
        OSError: the file cannot be written.
    """
    buffer = BytesIO()
    torch.save({"format": FORMAT, "inputs": inputs, **content}, buffer)
    write_whole(path, buffer.getvalue())


def load_checkpoint(path: Path, inputs: str) -> dict[str, Any]:
    """Read a checkpoint onto the CPU.

    Args:
        path: of the file.
        inputs: digest of what the training is made from.

    Raises:
        ConfigError: the file is missing, truncated, of another format or training, or holds more than plain values.
    """
    try:
        file = BytesIO(path.read_bytes())
        _check_crcs(file)
        content = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ConfigError(f"There is no {path}. Bring it back from a copy, or start again in another folder.") from None
    except Exception as error:  # torch raises whatever the damaged bytes lead to
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__).rstrip(".")
        raise ConfigError(
            f"The checkpoint {path} cannot be read: {reason}. It is truncated or not a checkpoint. "
            "Bring the file back from a copy, or delete the folder and train again."
        ) from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        found = content.get("format") if isinstance(content, dict) else type(content).__name__
        raise ConfigError(
            f"The checkpoint {path} has format {found!r}, this version reads {FORMAT}. "
            "Read it with the version that wrote it, or start again in another folder."
        )
    if content.get("inputs") != inputs:
        raise ConfigError(
            f"The checkpoint {path} is of another run: it was trained on other inputs than inputs.json next to it "
            "records. Bring the right file back, or start again in another folder."
        )
    return content


def _check_crcs(file: BytesIO) -> None:
    """Raise ValueError where a part of a file does not have its CRC: torch writes CRCs and never checks them."""
    with zipfile.ZipFile(file) as parts:
        damaged = parts.testzip()
    if damaged is not None:
        raise ValueError(f"the CRC of {damaged} in it is wrong.")
    file.seek(0)
