"""Any SAM-family image encoder exported to ONNX."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from nucseg.encoders.architectures import EMBEDDING_SHAPE, INPUT_PX
from nucseg.encoders.base import Encoder
from nucseg.encoders.preprocess import PREPROCESSING
from nucseg.errors import ConfigError, EncoderError

GPU_PROVIDER = ("CUDAExecutionProvider", {"use_tf32": "0"})
"""On a GPU float32 stays float32: the identity says so."""

ERRORS_ALONE = 3
"""ONNX Runtime's log severity: its warnings concern the graph's author."""


class OnnxEncoder(Encoder):
    """An exported encoder, run by ONNX Runtime one image at a time.

    A graph may say that its batch is free and yet hold reshapes that were traced with one image.
    """

    def __init__(self, path: Path, *, device: str, threads: int | None) -> None:
        content = _read(path)
        self._session = _open_session(path, content, device, threads)
        self._input, self._output = _check_graph(self._session, path)
        self.batch_size = 1
        self.identity = {
            "architecture": "onnx",
            "weights": str(xxhash.xxh128_hexdigest(content)),
            "layer": "output",
            "input_px": str(INPUT_PX),
            "preprocessing": PREPROCESSING,
            "precision": "float32",
        }
        self.provenance = {
            "onnxruntime": _onnxruntime().__version__,
            "pillow": version("pillow"),
            "device": self._session.get_providers()[0],
            "threads": str(threads or "default"),
        }

    def _embed(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        try:
            (embedding,) = self._session.run([self._output], {self._input: inputs})
        except Exception as error:  # ONNX Runtime's own errors have no public base class
            raise EncoderError(f"The ONNX encoder failed on an image: {error}") from error
        result: NDArray[np.float32] = embedding
        return result


def open_onnx(path: Path, *, device: str, precision: str, threads: int | None, batch_size: int | None) -> OnnxEncoder:
    """Open an exported encoder: (1, 3, 1024, 1024) float32, preprocessed as for SAM -> (1, 256, 64, 64).

    Raises:
        ConfigError: another precision than float32, or more than one image at once.
        EncoderError: no onnxruntime, not an ONNX file, a graph with other inputs or outputs, no such device.
    """
    if precision not in ("auto", "float32"):
        raise ConfigError(f"An ONNX file computes in the precision it was exported in: ask for auto, not {precision}.")
    if batch_size not in (None, 1):
        raise ConfigError(f"An ONNX file is run one image at a time: ask for batch size auto, not {batch_size}.")
    return OnnxEncoder(path, device=device, threads=threads)


def _onnxruntime() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise EncoderError("ONNX files need onnxruntime: `pip install nucseg[onnx]`.") from error
    return onnxruntime


def _read(path: Path) -> bytes:
    # read once: the digest is that of the very bytes that are run
    try:
        return path.read_bytes()
    except OSError as error:
        raise EncoderError(f"Cannot read the ONNX file {path}: {error.strerror}. Give onnx:FILE.") from error


def _open_session(path: Path, content: bytes, device: str, threads: int | None) -> Any:
    onnxruntime = _onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0  # 0: ONNX Runtime's own choice
    options.log_severity_level = ERRORS_ALONE
    providers = _providers(device, onnxruntime.get_available_providers())
    try:
        return onnxruntime.InferenceSession(content, options, providers=providers)
    except Exception as error:  # ONNX Runtime's own errors have no public base class
        raise EncoderError(
            f"{path} ({len(content):,} bytes) is not an ONNX model that can be run: {error} "
            "Export it again, weights and graph in one file."
        ) from error


def _providers(device: str, available: list[str]) -> list[Any]:
    if device == "cpu" or (device == "auto" and GPU_PROVIDER[0] not in available):
        return ["CPUExecutionProvider"]
    if device not in ("auto", "cuda"):
        raise ConfigError(f"An ONNX file runs on auto, cpu or cuda, not on {device!r}.")
    if GPU_PROVIDER[0] not in available:
        raise EncoderError(
            "Asked for device cuda, but this onnxruntime runs on the CPU alone. "
            "Ask for auto or cpu, or install onnxruntime-gpu."
        )
    return [GPU_PROVIDER, "CPUExecutionProvider"]


def _check_graph(session: Any, path: Path) -> tuple[str, str]:
    """Return the names of the input and of the output to use."""
    expected_input = (1, 3, INPUT_PX, INPUT_PX)
    inputs = session.get_inputs()
    if len(inputs) != 1 or not _fits(inputs[0], expected_input):
        raise EncoderError(
            f"{path} reads {_described(inputs)}, expected one float32 input of shape {expected_input}. "
            "Export the image encoder alone, without resizing or normalising inside the graph."
        )
    expected_output = (1, *EMBEDDING_SHAPE)
    outputs = [output for output in session.get_outputs() if _fits(output, expected_output)]
    if len(outputs) != 1:
        raise EncoderError(
            f"{path} returns {_described(session.get_outputs())}, expected one float32 output of shape "
            f"{expected_output}. Export the output of the encoder's neck."
        )
    return inputs[0].name, outputs[0].name


def _fits(argument: Any, expected: tuple[int, ...]) -> bool:
    """Whether a graph's input or output can have the expected shape; free axes are strings or None."""
    axes = argument.shape
    if argument.type != "tensor(float)" or len(axes) != len(expected):
        return False
    return all(not isinstance(axis, int) or axis == wanted for axis, wanted in zip(axes, expected, strict=True))


def _described(arguments: list[Any]) -> str:
    return ", ".join(f"{a.name} {a.type.removeprefix('tensor')} of shape {a.shape}" for a in arguments) or "nothing"
