"""The student network as an encoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nucseg.data.prepare import content_size, resized
from nucseg.encoders.base import Encoder
from nucseg.encoders.device import Hardware
from nucseg.encoders.preprocess import PIXEL_MEAN, PIXEL_STD
from nucseg.encoders.student.file import read_student
from nucseg.encoders.student.metadata import Origin
from nucseg.encoders.student.network import StudentNetwork
from nucseg.encoders.student.sizes import STUDENT_PX, shipped_student
from nucseg.encoders.weights import WeightsFile
from nucseg.errors import DataError, EncoderError

PREPROCESSING = "prepared"
"""Name in the encoder's identity: longest side 256 px as in a prepared sample, normalised with SAM's constants."""

BATCH = {"cpu": 8, "cuda": 64}
"""Images per forward pass by device type; larger batches make no CPU faster."""


class StudentEncoder(Encoder):
    """A small network that approximates the embeddings of its teacher."""

    def __init__(
        self, network: StudentNetwork, origin: Origin, digest: str, hardware: Hardware, batch_size: int | None
    ) -> None:
        self._hardware = hardware
        self._network = network.to(hardware.device, hardware.dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.batch_size = batch_size or BATCH.get(hardware.device.type, BATCH["cpu"])
        self.note = _note(origin)
        self.identity = {
            "architecture": "student",
            "weights": digest,
            "layer": "head",
            "input_px": str(STUDENT_PX),
            "preprocessing": PREPROCESSING,
            "precision": hardware.precision,
        }
        self.provenance = {
            "torch": torch.__version__,
            "teacher": " ".join(origin.teacher.get(name, "") for name in ("architecture", "weights")),
            "device": hardware.name,
            "threads": str(torch.get_num_threads()),
        }

    def resize(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Resize the longest side of (H, W, 3) to 256 px, as `nucseg.data.prepare` does."""
        try:
            return resized(image, *content_size((image.shape[0], image.shape[1]), STUDENT_PX))
        except DataError as error:
            raise EncoderError(f"The image is too long and thin for the student: {error}") from None

    def _prepare(self, images: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.uint8]]:
        return [self.resize(image) for image in images]

    def _embed(self, inputs: list[NDArray[np.uint8]]) -> NDArray[np.float32]:
        hardware = self._hardware
        with torch.inference_mode(), torch.autocast(hardware.device.type, enabled=False):
            tensor = padded(inputs).to(hardware.device, hardware.dtype)
            embedding: NDArray[np.float32] = self._network(tensor).float().contiguous().cpu().numpy()
        return embedding


def padded(images: Sequence[NDArray[np.uint8]]) -> Tensor:
    """Normalise images (H, W, 3) uint8 whose longest side is 256 -> (B, 3, 256, 256), zeros at the bottom right."""
    batch = np.zeros((len(images), STUDENT_PX, STUDENT_PX, 3), np.float32)
    for canvas, image in zip(batch, images, strict=True):
        canvas[: image.shape[0], : image.shape[1]] = (image - PIXEL_MEAN) / PIXEL_STD
    return torch.from_numpy(batch).movedim(-1, 1)  # channels last in memory


def open_student(weights: Path | None, *, hardware: Hardware, batch_size: int | None) -> StudentEncoder:
    """Open the shipped student, or that of a file written by `nucseg distill`.

    Raises:
        EncoderError: the file is missing, damaged, or not a student.
    """
    file = WeightsFile.of(weights or shipped_student())
    network, origin = read_student(file.path)
    file.check_unchanged()
    return StudentEncoder(network, origin, file.digest, hardware, batch_size)


def _note(origin: Origin) -> str:
    scores = [
        f"{record['centred_cosine']:.2f} on {record['n_test']} held-out images of {name}"
        for name, record in origin.datasets.items()
        if record.get("centred_cosine") is not None
    ]
    measured = f" (centred cosine {', '.join(scores)})" if scores else ""
    return (
        f"The encoder `student` imitates {_teacher_name(origin.teacher)}{measured}: only that encoder's own "
        "embeddings show how much its guidance helps."
    )


def _teacher_name(teacher: Mapping[str, str]) -> str:
    """Readable name of the teacher, with the start of its file's digest if the architecture does not identify it."""
    name = teacher.get("architecture", "another")
    return f"the {name} encoder {teacher.get('weights', '')[:8]}" if name in ("onnx", "student") else name
