"""SAM's image encoders vit_b, vit_l and vit_h from their checkpoints, and the encoder class that runs any such ViT."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nucseg.encoders.architectures import ARCHITECTURES, INPUT_PX
from nucseg.encoders.autotune import tune
from nucseg.encoders.base import Encoder
from nucseg.encoders.checkpoint import check_architecture, check_tensors, read_encoder_state
from nucseg.encoders.device import Hardware
from nucseg.encoders.preprocess import PIXEL_MEAN, PIXEL_STD, PREPROCESSING, resize
from nucseg.encoders.vit import build_vit, expected_tensors
from nucseg.encoders.weights import find_weights


class VitEncoder(Encoder):
    """An encoder that runs an ImageEncoderViT with published or random weights."""

    def __init__(
        self, model: nn.Module, identity: dict[str, str], hardware: Hardware, batch_size: int | None, note: str = ""
    ) -> None:
        self._model = model
        self._hardware = hardware
        self.batch_size, attention = tune(model, hardware, batch_size, INPUT_PX)
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
            "attention": attention,
            "threads": str(torch.get_num_threads()),
        }

    def _prepare(self, images: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.uint8]]:
        return [resize(image) for image in images]  # normalised on the device: a quarter of the bytes to transfer

    def _embed(self, inputs: list[NDArray[np.uint8]]) -> NDArray[np.float32]:
        hardware = self._hardware
        with torch.inference_mode(), torch.autocast(hardware.device.type, enabled=False), _full_float32():
            tensor = normalised(inputs, hardware.device).to(hardware.dtype)
            embedding: NDArray[np.float32] = self._model(tensor).cpu().numpy()
        return embedding


def normalised(images: Sequence[NDArray[np.uint8]], device: torch.device) -> Tensor:
    """Normalise and pad on a device, bit for bit as `preprocess.to_input` does.

    Shapes:
        images   each (H, W, 3) uint8 with longest side INPUT_PX
        returns  (B, 3, INPUT_PX, INPUT_PX) float32, channels last in memory
    """
    mean, std = (torch.from_numpy(constant).to(device) for constant in (PIXEL_MEAN, PIXEL_STD))
    padded = torch.zeros(len(images), INPUT_PX, INPUT_PX, 3, device=device)
    for canvas, image in zip(padded, images, strict=True):
        height, width, _ = image.shape
        buffer = torch.empty(image.shape, dtype=torch.uint8, pin_memory=device.type == "cuda")
        buffer.numpy()[...] = image
        torch.div(buffer.to(device, non_blocking=True) - mean, std, out=canvas[:height, :width])
    return padded.movedim(-1, 1)


def _full_float32() -> AbstractContextManager[None]:
    """Keep CUDA's convolutions from rounding float32 to TF32, which torch allows by default."""
    flags: AbstractContextManager[None] = torch.backends.cudnn.flags(enabled=True, allow_tf32=False)
    return flags


def open_sam(architecture: str, *, weights: Path | None, hardware: Hardware, batch_size: int | None) -> VitEncoder:
    """Open a published encoder with its checkpoint.

    Raises:
        EncoderError: the checkpoint is missing or damaged, contains code, or belongs to another architecture.
    """
    shape = ARCHITECTURES[architecture].shape
    file = find_weights(architecture, weights)
    state = read_encoder_state(file.path)
    check_architecture(state, architecture, file.path)
    check_tensors(state, expected_tensors(shape), file.path)
    model = build_vit(shape, state, hardware)
    file.check_unchanged()
    identity = {"architecture": architecture, "weights": file.digest}
    return VitEncoder(model, identity, hardware, batch_size)
