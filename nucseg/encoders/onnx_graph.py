"""Check the inputs and outputs of an exported graph, and whether it really processes more than one image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from nucseg.encoders.architectures import EMBEDDING_SHAPE, INPUT_PX
from nucseg.errors import EncoderError

SILENT = 4
"""ONNX Runtime's log severity for a run that may fail."""

TOLERANCE = 1e-3
"""Largest difference, in standard deviations, between an image's embedding alone and in a batch."""


def check_graph(session: Any, path: Path) -> tuple[str, str]:
    """Return the names of the input and of the output to use; EncoderError if there is no such pair."""
    expected_input = (1, 3, INPUT_PX, INPUT_PX)
    inputs = session.get_inputs()
    if len(inputs) != 1 or not _fits(inputs[0], expected_input):
        raise EncoderError(
            f"{path} reads {_describe(inputs)}, expected one float32 input of shape {expected_input}. "
            "Export the image encoder alone, without resizing or normalising inside the graph."
        )
    expected_output = (1, *EMBEDDING_SHAPE)
    outputs = [output for output in session.get_outputs() if _fits(output, expected_output)]
    if len(outputs) != 1:
        raise EncoderError(
            f"{path} returns {_describe(session.get_outputs())}, expected one float32 output of shape "
            f"{expected_output}. Export the output of the encoder's neck."
        )
    return inputs[0].name, outputs[0].name


def _fits(argument: Any, expected: tuple[int, ...]) -> bool:
    """Whether a graph's input or output can have the expected shape; free axes are strings or None."""
    axes = argument.shape
    if argument.type != "tensor(float)" or len(axes) != len(expected):
        return False
    return all(not isinstance(axis, int) or axis == length for axis, length in zip(axes, expected, strict=True))


def _describe(arguments: list[Any]) -> str:
    return ", ".join(f"{a.name} {a.type.removeprefix('tensor')} of shape {a.shape}" for a in arguments) or "nothing"


def takes_batches(session: Any, input_name: str, output_name: str) -> bool:
    """Whether a batch of two images gives the same result as each image alone.

    A graph may declare a free batch axis and still contain reshapes traced with one image, which fail or mix the
    images. Takes the time of four images, unless the declared shapes already fix the batch.
    """
    import onnxruntime  # an optional dependency

    shapes = [argument.shape for argument in (*session.get_inputs(), *session.get_outputs())]
    if any(shape[0] == 1 for shape in shapes):
        return False
    inputs = np.random.default_rng(0).standard_normal((2, 3, INPUT_PX, INPUT_PX), np.float32)
    options = onnxruntime.RunOptions()
    options.log_severity_level = SILENT
    alone = [session.run([output_name], {input_name: inputs[i : i + 1]}, options)[0] for i in range(2)]
    try:
        (batched,) = session.run([output_name], {input_name: inputs}, options)
    except Exception:  # ONNX Runtime's own errors have no public base class
        return False
    expected = np.concatenate(alone)
    return bool(batched.shape == expected.shape and np.abs(batched - expected).max() <= TOLERANCE * expected.std())
