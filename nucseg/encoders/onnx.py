"""Run any SAM-family image encoder exported to ONNX."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from io import BufferedReader
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from nucseg.adaptive_batch import lacks_memory
from nucseg.encoders.architectures import INPUT_PX
from nucseg.encoders.base import Encoder
from nucseg.encoders.onnx_graph import check_graph, takes_batches
from nucseg.encoders.preprocess import PREPROCESSING
from nucseg.errors import ConfigError, EncoderError
from nucseg.paths import opened_file

GPU_PROVIDER = ("CUDAExecutionProvider", {"use_tf32": "0"})
"""Without TF32: the identity records float32, so a GPU must compute in it."""

GPU_BATCH = 8
"""Images per run on a GPU, if the graph accepts them; halved permanently if they do not fit into memory."""

ERRORS_ONLY = 3
"""ONNX Runtime's log severity; its warnings are for authors of graphs."""


class OnnxEncoder(Encoder):
    """An exported encoder, run by ONNX Runtime.

    A CPU encodes one image at a time by default, because one keeps all threads busy.
    """

    def __init__(self, path: Path, *, device: str, threads: int | None, batch_size: int | None) -> None:
        content = _read(path)
        self._session = _open_session(path, content, device, threads)
        self._input, self._output = check_graph(self._session, path)
        self._bound_to = "cuda" if self._session.get_providers()[0] == GPU_PROVIDER[0] else None
        self.batch_size = self._batch_size(path, batch_size)
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

    def _batch_size(self, path: Path, requested: int | None) -> int:
        wanted = requested or (GPU_BATCH if self._bound_to else 1)
        if wanted == 1 or takes_batches(self._session, self._input, self._output):
            return wanted
        if requested is not None:
            raise ConfigError(f"{path} runs one image at a time: ask for batch size auto or 1, not {requested}.")
        return 1

    def _embed(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        try:
            embedding: NDArray[np.float32] = run(self._session, self._input, self._output, inputs, self._bound_to)
        except Exception as error:  # ONNX Runtime's own errors have no public base class
            if lacks_memory(error):
                raise
            raise EncoderError(f"The ONNX encoder failed on an image: {error}") from error
        return embedding


def run(session: Any, input_name: str, output_name: str, inputs: NDArray[np.float32], device: str | None) -> Any:
    """Run a session once; with a device, input and output are bound to its memory, which avoids further copies."""
    if device is None:
        return session.run([output_name], {input_name: inputs})[0]
    binding = session.io_binding()
    binding.bind_ortvalue_input(input_name, _onnxruntime().OrtValue.ortvalue_from_numpy(inputs, device, 0))
    binding.bind_output(output_name, device)
    session.run_with_iobinding(binding)
    return binding.copy_outputs_to_cpu()[0]


def open_onnx(path: Path, *, device: str, precision: str, threads: int | None, batch_size: int | None) -> OnnxEncoder:
    """Open an exported encoder: (1, 3, 1024, 1024) float32, preprocessed as for SAM -> (1, 256, 64, 64).

    Raises:
        ConfigError: the precision is not float32, or the graph does not accept batches of this size.
        EncoderError: onnxruntime or the device is missing, or the file is not ONNX or has other inputs or outputs.
    """
    if precision not in ("auto", "float32"):
        raise ConfigError(f"An ONNX file computes in the precision it was exported in: ask for auto, not {precision}.")
    return OnnxEncoder(path, device=device, threads=threads, batch_size=batch_size)


def check_onnx(path: Path) -> None:
    """Raise EncoderError if onnxruntime is not installed or the file cannot be read; its graph is not looked at."""
    _onnxruntime()
    with _opened(path):
        pass


def _onnxruntime() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise EncoderError("ONNX files need onnxruntime: `pip install nucseg[onnx]`.") from error
    return onnxruntime


def _read(path: Path) -> bytes:
    # read once, so that the digest belongs to exactly the bytes that run
    with _opened(path) as stream:
        return stream.read()


@contextmanager
def _opened(path: Path) -> Iterator[BufferedReader]:
    try:
        with opened_file(path) as stream:
            yield stream
    except OSError as error:
        raise EncoderError(f"Cannot read the ONNX file {path}: {error.strerror}. Give onnx:FILE.") from error


def _open_session(path: Path, content: bytes, device: str, threads: int | None) -> Any:
    onnxruntime = _onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0  # 0: ONNX Runtime's own choice
    # waiting threads must not spin: others read, write and prepare images; results do not change
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = ERRORS_ONLY
    providers = _providers(device, onnxruntime.get_available_providers())
    try:
        return onnxruntime.InferenceSession(content, options, providers=providers)
    except Exception as error:  # ONNX Runtime's own errors have no public base class
        raise EncoderError(
            f"{path} ({len(content):,} bytes) is not an ONNX model that can be run: {error} "
            "Export it again, with weights and graph in one file."
        ) from error


def _providers(device: str, available: list[str]) -> list[Any]:
    if device == "cpu" or (device == "auto" and GPU_PROVIDER[0] not in available):
        return ["CPUExecutionProvider"]
    if device not in ("auto", "cuda"):
        raise ConfigError(f"An ONNX file runs on auto, cpu or cuda, not on {device!r}.")
    if GPU_PROVIDER[0] not in available:
        raise EncoderError(
            "Asked for device cuda, but this onnxruntime only supports the CPU. "
            "Ask for auto or cpu, or install onnxruntime-gpu."
        )
    return [GPU_PROVIDER, "CPUExecutionProvider"]
