"""An ONNX file gives what ONNX Runtime itself gives, and a wrong one is refused with the reason."""

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pooch
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from nucseg.encoders import asked_identity, open_encoder
from nucseg.encoders.onnx import run
from nucseg.encoders.onnx_graph import takes_batches
from nucseg.errors import ConfigError, EncoderError

onnxruntime = pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")

INPUT = [1, 3, 1024, 1024]
FREE_BATCH: list[int | str] = ["batch", 3, 1024, 1024]
FLOAT, UINT8 = 1, 2


def field(number: int, value: int | bytes | str) -> bytes:
    """One field of a protocol buffer: a number or a length-delimited content."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    content = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(content)) + content


def varint(value: int) -> bytes:
    low = value & 127
    return bytes([low | 128]) + varint(value >> 7) if value > 127 else bytes([low])


def value_info(name: str, shape: list[int | str], kind: int = FLOAT) -> bytes:
    axes = b"".join(field(1, field(1 if isinstance(axis, int) else 2, axis)) for axis in shape)
    return field(1, name) + field(2, field(1, field(1, kind) + field(2, axes)))


def onnx_file(path: Path, inputs: list[bytes], outputs: list[bytes], nodes: list[bytes]) -> Path:
    """Write an ONNX model of opset 13 by hand (onnx.proto3)."""
    graph = b"".join(field(1, node) for node in nodes) + field(2, "graph")
    graph += b"".join(field(11, x) for x in inputs) + b"".join(field(12, x) for x in outputs)
    path.write_bytes(field(1, 8) + field(7, graph) + field(8, field(1, "") + field(2, 13)))
    return path


def node(operator: str, source: str, target: str) -> bytes:
    return field(1, source) + field(2, target) + field(4, operator)


def identity_graph(path: Path, shape: list[int | str], kind: int = FLOAT, outputs: int = 1) -> Path:
    names = [f"y{i}" for i in range(outputs)]
    return onnx_file(
        path,
        [value_info("x", shape, kind)],
        [value_info(name, shape, kind) for name in names],
        [node("Identity", "x", name) for name in names],
    )


def real_encoder(shared: Path) -> Path:
    return shared / "weights" / "mobile_sam_encoder.onnx"


def real_image(shared: Path) -> np.ndarray:
    folder = shared / "data" / "nuinsseg" / "human oesophagus" / "tissue images"
    return np.asarray(Image.open(folder / "human_oesophagus_01.png").convert("RGB"))[:, :400]


@pytest.mark.shared
def test_a_real_encoder_embeds_a_real_image_as_onnxruntime_does_by_itself(shared: Path) -> None:
    image = real_image(shared)
    resized = np.array(Image.fromarray(image).resize((800, 1024), Image.BILINEAR))
    mean, std = torch.tensor([123.675, 116.28, 103.53]), torch.tensor([58.395, 57.12, 57.375])
    tensor = F.pad(((torch.from_numpy(resized) - mean) / std).permute(2, 0, 1), (0, 224))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(real_encoder(shared), options, providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, {"input": tensor[None].numpy()})

    encoder = open_encoder(f"onnx:{real_encoder(shared)}", device="cpu", threads=1)
    found = encoder.encode([image])

    assert encoder.batch_size == 1
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    assert found.std() == pytest.approx(0.1, abs=0.03)
    assert encoder.identity == {
        "architecture": "onnx",
        "weights": pooch.file_hash(str(real_encoder(shared)), alg="xxh128"),
        "layer": "output",
        "input_px": "1024",
        "preprocessing": "sam",
        "precision": "float32",
    }


@pytest.mark.shared
def test_the_identity_depends_on_the_contents_not_on_the_name(shared: Path, tmp_path: Path) -> None:
    renamed = tmp_path / "renamed.onnx"
    renamed.write_bytes(real_encoder(shared).read_bytes())
    encoder = open_encoder(f"onnx:{renamed}", device="cpu", threads=1)

    assert asked_identity(f"onnx:{real_encoder(shared)}").items() <= encoder.identity.items()
    assert encoder.provenance["threads"] == "1"
    assert encoder.provenance["onnxruntime"] == onnxruntime.__version__
    assert encoder.provenance["device"] == "CPUExecutionProvider"


@pytest.mark.parametrize("content", [b"", b"<html>404</html>", bytes(100)])
def test_a_file_that_is_not_onnx_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "encoder.onnx"
    path.write_bytes(content)

    with pytest.raises(EncoderError, match=rf"encoder.onnx \({len(content)} bytes\) is not an ONNX model"):
        open_encoder(f"onnx:{path}", device="cpu")


@pytest.mark.shared
def test_a_truncated_onnx_file_is_refused(shared: Path, tmp_path: Path) -> None:
    path = tmp_path / "encoder.onnx"
    path.write_bytes(real_encoder(shared).read_bytes()[:1_000_000])

    with pytest.raises(EncoderError, match="is not an ONNX model that can be run"):
        open_encoder(f"onnx:{path}", device="cpu")


def test_a_missing_onnx_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match=r"Cannot read the ONNX file .*none.onnx: No such file"):
        open_encoder(f"onnx:{tmp_path / 'none.onnx'}", device="cpu")


@pytest.mark.parametrize("shape", [[1, 3, 512, 512], [1, 1024, 1024, 3], [3, 1024, 1024], [2, 3, 1024, 1024]])
def test_a_graph_with_another_input_shape_is_refused_with_both_shapes(tmp_path: Path, shape: list[int | str]) -> None:
    path = identity_graph(tmp_path / "x.onnx", shape)

    with pytest.raises(EncoderError) as caught:
        open_encoder(f"onnx:{path}", device="cpu")

    assert f"reads x (float) of shape {shape}, expected one float32 input of shape (1, 3, 1024, 1024)" in str(
        caught.value
    )


def test_a_graph_that_reads_uint8_or_two_tensors_is_refused(tmp_path: Path) -> None:
    path = identity_graph(tmp_path / "x.onnx", [*INPUT], UINT8)
    with pytest.raises(EncoderError, match=r"reads x \(uint8\) of shape"):
        open_encoder(f"onnx:{path}", device="cpu")

    onnx_file(
        path,
        [value_info("a", [*INPUT]), value_info("b", [*INPUT])],
        [value_info("c", [])],
        [node("Identity", "a", "c")],
    )
    with pytest.raises(EncoderError, match=r"reads a \(float\) of shape .*, b \(float\) of shape"):
        open_encoder(f"onnx:{path}", device="cpu")


@pytest.mark.parametrize("outputs", [1, 2])
def test_a_graph_with_another_output_shape_is_refused(tmp_path: Path, outputs: int) -> None:
    path = identity_graph(tmp_path / "x.onnx", [*INPUT], outputs=outputs)

    with pytest.raises(EncoderError, match=r"returns y0 \(float\) of shape .*expected one float32 output of shape"):
        open_encoder(f"onnx:{path}", device="cpu")


def test_a_graph_with_free_axes_is_taken_and_the_guard_sees_its_output(tmp_path: Path) -> None:
    path = identity_graph(tmp_path / "x.onnx", ["batch", "channels", "height", "width"])
    encoder = open_encoder(f"onnx:{path}", device="cpu")

    with pytest.raises(EncoderError, match=r"shape \(1, 3, 1024, 1024\) for 1 image\(s\), expected \(1, 256, 64, 64\)"):
        encoder.encode([np.zeros((8, 8, 3), np.uint8)])


def session_of(path: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def mixing_graph(path: Path, shape: list[int | str]) -> Path:
    """Subtract from every image the largest value of all images together."""
    difference = field(1, "x") + field(1, "largest") + field(2, "y") + field(4, "Sub")
    nodes = [node("ReduceMax", "x", "largest"), difference]
    return onnx_file(path, [value_info("x", shape)], [value_info("y", shape)], nodes)


def test_a_graph_that_treats_every_image_alone_takes_batches(tmp_path: Path) -> None:
    free = session_of(identity_graph(tmp_path / "free.onnx", FREE_BATCH))
    single = session_of(identity_graph(tmp_path / "single.onnx", [*INPUT]))

    assert takes_batches(free, "x", "y0")
    assert not takes_batches(single, "x", "y0")


def test_a_graph_that_mixes_the_images_takes_no_batches(tmp_path: Path) -> None:
    assert not takes_batches(session_of(mixing_graph(tmp_path / "x.onnx", FREE_BATCH)), "x", "y")


@pytest.mark.shared
def test_a_graph_that_fails_with_two_images_takes_no_batches_and_says_nothing(
    shared: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The real encoder reads any number of images, and a convolution inside fails with two."""
    session = session_of(real_encoder(shared))

    class WithoutDeclaredShapes:
        get_inputs = get_outputs = staticmethod(lambda: [SimpleNamespace(shape=FREE_BATCH)])
        run = staticmethod(session.run)

    assert not takes_batches(WithoutDeclaredShapes(), "input", session.get_outputs()[0].name)
    assert tuple(capfd.readouterr()) == ("", "")


def test_more_images_than_the_graph_takes_are_refused(tmp_path: Path) -> None:
    path = mixing_graph(tmp_path / "x.onnx", ["batch", "channels", "height", "width"])

    with pytest.raises(ConfigError, match=r"x.onnx runs one image at a time: ask for batch size auto or 1, not 4"):
        open_encoder(f"onnx:{path}", device="cpu", batch_size=4)
    assert open_encoder(f"onnx:{path}", device="cpu").batch_size == 1


def test_a_run_bound_to_a_devices_memory_gives_the_same_bits(tmp_path: Path) -> None:
    session = session_of(mixing_graph(tmp_path / "x.onnx", FREE_BATCH))
    inputs = np.random.default_rng(0).standard_normal((2, 3, 1024, 1024), np.float32)

    plain, bound = (run(session, "x", "y", inputs, device) for device in (None, "cpu"))

    np.testing.assert_array_equal(bound, plain)
    np.testing.assert_array_equal(plain, inputs - inputs.max())


def test_a_batch_without_memory_is_halved_for_onnx_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fits_one(session: object, name: str, output: str, inputs: np.ndarray, device: str | None) -> np.ndarray:
        if len(inputs) > 1:
            raise RuntimeError("BFCArena::AllocateRawInternal Failed to allocate memory for requested buffer of size 9")
        return inputs.mean(axis=1, keepdims=True)[:, :, ::16, ::16].repeat(256, axis=1)

    monkeypatch.setattr("nucseg.encoders.onnx.run", fits_one)
    encoder = open_encoder(f"onnx:{identity_graph(tmp_path / 'x.onnx', ['b', 'c', 'h', 'w'])}", device="cpu")
    encoder.batch_size = 2
    noise = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)

    assert encoder.encode(noise).shape == (2, 256, 64, 64)
    assert encoder.batch_size == 1


def test_a_gpu_is_refused_where_onnxruntime_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    path = identity_graph(tmp_path / "x.onnx", [*INPUT])

    with pytest.raises(EncoderError, match="onnxruntime-gpu"):
        open_encoder(f"onnx:{path}", device="cuda")


def test_without_onnxruntime_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    path = identity_graph(tmp_path / "x.onnx", [*INPUT])

    with pytest.raises(EncoderError, match=r"pip install nucseg\[onnx\]"):
        open_encoder(f"onnx:{path}", device="cpu")


def test_a_device_that_onnx_files_do_not_run_on_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="runs on auto, cpu or cuda, not on 'mps'"):
        open_encoder(f"onnx:{identity_graph(tmp_path / 'x.onnx', [*INPUT])}", device="mps")


def test_a_failure_inside_the_graph_is_reported_as_the_encoders_failure(
    instant_encoder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*args: object) -> None:
        raise RuntimeError("Non-zero status code returned while running Conv node")

    encoder = open_encoder(instant_encoder, device="cpu")
    monkeypatch.setattr("nucseg.encoders.onnx.run", fails)
    with pytest.raises(EncoderError, match="failed on an image: Non-zero status code"):
        encoder.run([np.zeros((16, 16, 3), np.uint8)])
