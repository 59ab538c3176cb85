"""SAM's image encoders vit_b, vit_l and vit_h, from their checkpoints, and how any ViT of theirs is run."""

from __future__ import annotations

import re
from contextlib import AbstractContextManager
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from nucseg.encoders.architectures import ARCHITECTURES, INPUT_PX
from nucseg.encoders.base import Encoder, OutOfMemoryError
from nucseg.encoders.checkpoint import check_architecture, check_tensors, read_encoder_state
from nucseg.encoders.device import Hardware, choose_batch_size
from nucseg.encoders.preprocess import PREPROCESSING
from nucseg.encoders.vit import build_vit, expected_tensors
from nucseg.encoders.weights import find_weights

OUT_OF_MEMORY = re.compile("out of memory|DefaultCPUAllocator")
"""How torch says it, on CUDA and Apple's GPUs, and on a CPU, which has no exception of its own for it."""


class VitEncoder(Encoder):
    """An ImageEncoderViT that reads preprocessed images: published weights or random ones."""

    def __init__(
        self, model: nn.Module, identity: dict[str, str], hardware: Hardware, batch_size: int, note: str = ""
    ) -> None:
        self._model = model
        self._hardware = hardware
        self.batch_size = batch_size
        self.note = note
        self.identity = {
            **identity,
            "layer": "neck",
            "input_px": str(INPUT_PX),
            "preprocessing": PREPROCESSING,
            "precision": hardware.precision,
        }
        self.provenance = {
            "torch": torch.__version__,
            "segment-anything": version("segment-anything"),
            "pillow": version("pillow"),
            "device": hardware.name,
            "threads": str(torch.get_num_threads()),
        }

    def _embed(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        device = self._hardware.device
        try:
            with torch.inference_mode(), torch.autocast(device.type, enabled=False), _full_float32():
                tensor = torch.from_numpy(inputs).to(device, self._hardware.dtype)
                embedding: NDArray[np.float32] = self._model(tensor).cpu().numpy()
        except RuntimeError as error:
            if not OUT_OF_MEMORY.search(str(error)):
                raise
            raise OutOfMemoryError(str(error).splitlines()[0]) from error
        return embedding


def _full_float32() -> AbstractContextManager[None]:
    """Keep CUDA's convolutions from rounding float32 to TF32, which torch allows by default."""
    flags: AbstractContextManager[None] = torch.backends.cudnn.flags(enabled=True, allow_tf32=False)
    return flags


def open_sam(architecture: str, *, weights: Path | None, hardware: Hardware, batch_size: int | None) -> VitEncoder:
    """Open a published encoder with its checkpoint.

    Raises:
        EncoderError: no checkpoint found, a damaged one, one with code inside, one of another architecture.
    """
    shape = ARCHITECTURES[architecture].shape
    file = find_weights(architecture, weights)
    state = read_encoder_state(file.path)
    check_architecture(state, architecture, file.path)
    check_tensors(state, expected_tensors(shape), file.path)
    model = build_vit(shape, state, hardware)
    file.check_unchanged()
    identity = {"architecture": architecture, "weights": file.digest}
    return VitEncoder(model, identity, hardware, batch_size or choose_batch_size(hardware, shape))
