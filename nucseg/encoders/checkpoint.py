"""Read a SAM checkpoint without running code in it, and report clearly what is wrong with it."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nucseg.encoders.architectures import ARCHITECTURES
from nucseg.errors import EncoderError

ENCODER_PREFIX = "image_encoder."
"""Prefix of the image encoder's tensors in a checkpoint of a whole SAM."""

ZIP_MAGIC = b"PK\x03\x04"
"""First bytes of files that torch.save writes since 1.6; older files cannot be memory-mapped."""


def read_encoder_state(path: Path) -> dict[str, Tensor]:
    """Read the image encoder's tensors from a checkpoint of a whole SAM, or of the encoder alone.

    The tensors are memory-mapped if the file allows it: copy those that must outlive the file.

    Raises:
        EncoderError: the file is truncated, not a checkpoint, contains pickled code, or has no image encoder.
    """
    content = _load(path)
    if not isinstance(content, Mapping):
        raise _not_weights(path, f"it contains a {type(content).__name__}")
    tensors = {k: v for k, v in content.items() if isinstance(k, str) and isinstance(v, Tensor)}
    encoder = {k.removeprefix(ENCODER_PREFIX): v for k, v in tensors.items() if k.startswith(ENCODER_PREFIX)}
    if encoder:
        return encoder
    if "pos_embed" in tensors:
        return tensors
    raise _not_weights(path, f"its entries are {_few([str(key) for key in content])}")


def check_architecture(state: Mapping[str, Tensor], architecture: str, path: Path) -> None:
    """Raise EncoderError if the weights belong to another architecture."""
    expected = ARCHITECTURES[architecture].shape
    found = _width_and_depth(state)
    if found == (expected.embed_dim, expected.depth):
        return
    if found is None:
        raise EncoderError(
            f"{path} is not a SAM ViT: its image encoder has no pos_embed, as in MobileSAM and other variants. "
            "Export its encoder and use onnx:FILE."
        )
    names = [name for name, vit in ARCHITECTURES.items() if found == (vit.shape.embed_dim, vit.shape.depth)]
    size = f"width {found[0]}, {found[1]} blocks"
    way_out = f"Ask for {names[0]}" if names else "Export its encoder and use onnx:FILE"
    raise EncoderError(
        f"{path} is {'a ' + names[0] if names else 'an unknown ViT'} checkpoint ({size}), asked for {architecture} "
        f"(width {expected.embed_dim}, {expected.depth} blocks). {way_out}, or give the right file with --weights."
    )


def check_tensors(state: Mapping[str, Tensor], expected: Mapping[str, Tensor], path: Path) -> None:
    """Raise EncoderError unless `state` has exactly the keys and shapes of `expected`, in finite floats."""
    missing = [key for key in expected if key not in state]
    unexpected = [key for key in state if key not in expected]
    if missing or unexpected:
        raise EncoderError(
            f"{path} does not fit the encoder: {len(missing)} missing {_few(missing)}, "
            f"{len(unexpected)} unexpected {_few(unexpected)}. Give an unmodified SAM checkpoint with --weights."
        )
    for fault in (_wrong_shapes(state, expected), _not_finite(state)):
        if fault:
            raise EncoderError(
                f"{path} does not fit the encoder: {len(fault)} {_few(fault)}. "
                "Give an intact SAM checkpoint with --weights."
            )


def _load(path: Path) -> Any:
    with path.open("rb") as file:
        mapped = file.read(len(ZIP_MAGIC)) == ZIP_MAGIC
    try:
        with warnings.catch_warnings():
            # one clear message is enough: torch also warns about the pickle protocol of files that it then refuses
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:  # a damaged pickle can raise anything
        raise _unreadable(path, mapped, str(error)) from error


def _unreadable(path: Path, is_zip: bool, reason: str) -> EncoderError:
    code = re.search(r"GLOBAL ([\w.]+)", reason)
    if code:
        return EncoderError(
            f"{path} contains pickled code ({code[1]}), not only tensors, and was not loaded: it could do anything. "
            "Have it saved as a plain state dict, torch.save(model.state_dict(), FILE)."
        )
    size = f"{path.stat().st_size:,} bytes"
    if is_zip or "EOF" in reason:
        return EncoderError(f"{path} is truncated or damaged ({size}). Copy or download it again.")
    return EncoderError(f"{path} is not a checkpoint ({size}). Give a file written by torch.save with --weights.")


def _not_weights(path: Path, found: str) -> EncoderError:
    return EncoderError(
        f"{path} is not a SAM checkpoint: {found}, expected tensors named {ENCODER_PREFIX}* "
        "(or those of the image encoder alone). Give another file with --weights."
    )


def _width_and_depth(state: Mapping[str, Tensor]) -> tuple[int, int] | None:
    if "pos_embed" not in state or state["pos_embed"].ndim == 0:
        return None
    blocks = {key.split(".")[1] for key in state if key.startswith("blocks.")}
    return state["pos_embed"].shape[-1], len(blocks)


def _wrong_shapes(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> list[str]:
    return [
        f"{key} of shape {tuple(state[key].shape)}, expected {tuple(tensor.shape)}"
        for key, tensor in expected.items()
        if state[key].shape != tensor.shape
    ]


def _not_finite(state: Mapping[str, Tensor]) -> list[str]:
    return [
        f"{key} with values that are not finite floats"
        for key, tensor in state.items()
        if not tensor.is_floating_point() or not bool(torch.isfinite(tensor).all())
    ]


def _few(names: list[str]) -> str:
    return f"({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})" if names else "(none)"
