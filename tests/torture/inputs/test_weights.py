"""Encoder weights that contain code, are damaged or of another network, and files that are not weights."""

import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.instant_encoder import message

MARK = "nucseg was here"


class Code:
    """Writes a file when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.write_text, (self.folder / MARK, "run")


def like_sam(width: int = 768, blocks: int = 12, fill: float = 0.0) -> dict[str, torch.Tensor]:
    """The tensors of a checkpoint that identify its architecture."""
    norms = {f"image_encoder.blocks.{i}.norm1.weight": torch.full((width,), fill) for i in range(blocks)}
    return {"image_encoder.pos_embed": torch.zeros(1, 64, 64, width), **norms}


def saved(content: Any) -> Callable[[Path], None]:
    return lambda file: torch.save(content, file)


def cut(content: Any, keep: float) -> Callable[[Path], None]:
    def make(file: Path) -> None:
        torch.save(content, file)
        file.write_bytes(file.read_bytes()[: int(file.stat().st_size * keep)])

    return make


def raw(content: bytes) -> Callable[[Path], None]:
    return lambda file: file.write_bytes(content) and None


def zipped(**files: bytes) -> Callable[[Path], None]:
    def make(file: Path) -> None:
        with zipfile.ZipFile(file, "w") as archive:
            for name, content in files.items():
                archive.writestr(name.replace("__", "/"), content)

    return make


def with_code(protocol: int | None = None) -> Callable[[Path], None]:
    def make(file: Path) -> None:
        content = {**like_sam(), "more": Code(file.parent)}
        if protocol is None:
            torch.save(content, file)
        else:
            file.write_bytes(pickle.dumps(content["more"], protocol))

    return make


def in_old_format(file: Path) -> None:
    torch.save({"more": Code(file.parent)}, file, _use_new_zipfile_serialization=False)


def flipped(file: Path) -> None:
    torch.save(like_sam(), file)
    content = bytearray(file.read_bytes())
    content[len(content) // 3] ^= 0xFF
    file.write_bytes(bytes(content))


def safetensors(file: Path) -> None:
    save_file = pytest.importorskip("safetensors.torch").save_file
    save_file({name: tensor.contiguous() for name, tensor in like_sam().items()}, file)


def numpy_pickle(file: Path) -> None:
    with file.open("wb") as stream:
        np.save(stream, np.array([Code(file.parent)], object), allow_pickle=True)


WEIGHTS: dict[str, Callable[[Path], None]] = {
    "code in a state dict": with_code(),
    "code in the old format": in_old_format,
    **{f"code in a pickle of protocol {n}": with_code(n) for n in range(6)},
    "code in an array": numpy_pickle,
    "a whole module": saved(torch.nn.Linear(2, 2)),
    "a tensor": saved(torch.zeros(3)),
    "a list": saved([1, 2]),
    "an empty dict": saved({}),
    "other keys": saved({"a": torch.zeros(3)}),
    "keys that are numbers": saved({1: torch.zeros(3)}),
    "text in place of tensors": saved({"image_encoder.pos_embed": "x"}),
    "no position embedding": saved({"image_encoder.x": torch.zeros(1)}),
    "another architecture": saved(like_sam(1024, 24)),
    "no known architecture": saved(like_sam(77, 3)),
    "missing tensors": saved(like_sam()),
    "NaN": saved(like_sam(fill=float("nan"))),
    "integers": saved({name: t.long() for name, t in like_sam().items()}),
    "a position embedding without dimensions": saved({"image_encoder.pos_embed": torch.zeros(())}),
    "sparse": saved({"image_encoder.pos_embed": torch.zeros(1, 64, 64, 768).to_sparse()}),
    "on the meta device": saved({"image_encoder.pos_embed": torch.zeros(4, device="meta")}),
    "cut in half": cut(like_sam(), 0.5),
    "without its last bytes": cut(like_sam(), 0.999),
    "only its first bytes": cut(like_sam(), 0.001),
    "a changed byte": flipped,
    "empty": raw(b""),
    "one byte": raw(b"P"),
    "text": raw(b"weights\n"),
    "a web page": raw(b"<!DOCTYPE html><html>login</html>"),
    "zeros": raw(bytes(5000)),
    "LFS pointer": raw(b"version https://git-lfs.github.com/spec/v1\n"),
    "a zip of something else": zipped(readme__txt=b"hello"),
    "a zip with a pickle that is text": zipped(archive__data__pkl=b"hello"),
    "safetensors": safetensors,
    "folder": lambda file: file.mkdir(),
    "nothing": lambda file: None,
    "dangling link": lambda file: file.symlink_to("nothing"),
    "loop of links": lambda file: file.symlink_to(file.name),
    "endless device": lambda file: file.symlink_to("/dev/zero"),
    "pipe": lambda file: os.mkfifo(file),
}


def test_weights(trial: Any, dataset: Any, some_of: Any) -> None:
    for case, make in some_of(WEIGHTS, 6).items():
        data = dataset()
        file = data.folder.parent / "odd.pth"
        make(file)
        trial(
            "weights: with code" if "code" in case else "weights: invalid or damaged",
            case,
            ["embed", *data.named, "--encoder", "vit_b", "--weights", file],
            naming=["odd.pth"],
            always=data.valid_images_problem,
            seconds=40,
        )
        assert not (file.parent / MARK).exists(), case


ONNX: dict[str, bytes] = {
    "empty": b"",
    "text": b"a graph",
    "zeros": bytes(3000),
    "a web page": b"<html></html>",
    "a zip": b"PK\x03\x04" + bytes(90),
    "a pickle": pickle.dumps({"a": 1}),
    "random": bytes(np.random.default_rng(0).integers(0, 256, 3000, np.uint8)),
}


def model(
    *,
    shape: tuple[int, ...] = (1, 3, 1024, 1024),
    opset: int = 13,
    operator: str = "Identity",
    kind: int = 1,
    domain: str = "",
) -> bytes:
    """An ONNX file of one node (onnx.proto3)."""
    dims = message(*((1, message((1, n))) for n in shape))
    ends = [message((1, name), (2, message((1, message((1, kind), (2, dims)))))) for name in ("x", "y")]
    node = message((1, "x"), (2, "y"), (4, operator), *([(7, domain)] if domain else []))
    graph = message((1, node), (2, "odd"), (11, ends[0]), (12, ends[1]))
    return message((1, 8), (7, graph), (8, message((1, domain), (2, opset))))


ONNX |= {
    "another output": model(),
    "another input": model(shape=(1, 3, 224, 224)),
    "one dimension": model(shape=(9,)),
    "another type": model(kind=7),
    "an opset of the future": model(opset=999),
    "an opset of the past": model(opset=1),
    "an unknown operator": model(operator="Magic"),
    "an operator of others": model(operator="Run", domain="evil.ops"),
    "cut short": model()[:40],
    "a huge shape": model(shape=(1, 3, 2**40, 2**40)),
    "no shape": model(shape=()),
}


def test_exported_encoders(trial: Any, dataset: Any, some_of: Any) -> None:
    pytest.importorskip("onnxruntime")
    for case, content in some_of(ONNX, 3).items():
        data = dataset()
        file = data.folder.parent / "odd.onnx"
        file.write_bytes(content)
        trial(
            "encoder: invalid ONNX file",
            case,
            ["embed", *data.named, "--encoder", f"onnx:{file}"],
            naming=["odd.onnx"],
            always=data.valid_images_problem,
            seconds=40,
        )
