"""Opening a checkpoint gives the published encoder, or one clear message."""

import io
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nucseg.encoders import ARCHITECTURES, PublishedVit, VitShape, open_encoder
from nucseg.encoders.checkpoint import check_architecture, read_encoder_state
from nucseg.encoders.vit import build_published
from nucseg.errors import EncoderError

TINY = VitShape(embed_dim=16, depth=2, num_heads=2, global_blocks=(), window_cells=8)
SMALL = VitShape(embed_dim=32, depth=1, num_heads=2, global_blocks=(), window_cells=8)


@pytest.fixture(autouse=True)
def small_architectures(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, shape in {"tiny": TINY, "small": SMALL}.items():
        vit = PublishedVit(shape=shape, file_name=f"{name}.pth", file_digest="0" * 32)
        monkeypatch.setitem(ARCHITECTURES, name, vit)


def published_with_drawn_weights(shape: VitShape) -> torch.nn.Module:
    generator = torch.Generator().manual_seed(0)
    module = build_published(shape)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return module.eval()


def encoder_state(shape: VitShape = TINY) -> dict[str, torch.Tensor]:
    return dict(published_with_drawn_weights(shape).state_dict())


def as_whole_sam(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    others = {"prompt_encoder.no_mask_embed.weight": torch.ones(1, 256), "mask_decoder.iou_token.weight": torch.ones(1)}
    return {**{f"image_encoder.{key}": value for key, value in state.items()}, **others}


def saved(content: object, path: Path, **how: bool) -> Path:
    torch.save(content, path, **how)
    return path


def message_of_opening(path: Path, architecture: str = "tiny") -> str:
    with pytest.raises(EncoderError) as caught:
        open_encoder(architecture, weights=path, device="cpu")
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


def test_an_opened_checkpoint_encodes_as_the_published_encoder_does(tmp_path: Path) -> None:
    published = published_with_drawn_weights(TINY)
    path = saved(as_whole_sam(dict(published.state_dict())), tmp_path / "sam.pth")
    image = np.random.default_rng(0).integers(0, 256, (1024, 1024, 3), dtype=np.uint8)

    found = open_encoder("tiny", weights=path, device="cpu").encode([image])

    mean, std = torch.tensor([123.675, 116.28, 103.53]), torch.tensor([58.395, 57.12, 57.375])
    with torch.inference_mode():
        expected = published(((torch.from_numpy(image) - mean) / std).permute(2, 0, 1)[None])
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected.numpy(), rtol=0, atol=1e-4)


def test_a_checkpoint_of_the_encoder_alone_and_an_old_file_format_are_read_too(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (512, 700, 3), dtype=np.uint8)
    state = encoder_state()
    paths = [
        saved(as_whole_sam(state), tmp_path / "whole.pth"),
        saved(state, tmp_path / "alone.pth"),
        saved(as_whole_sam(state), tmp_path / "old.pth", _use_new_zipfile_serialization=False),
    ]

    first, *others = [open_encoder("tiny", weights=path, device="cpu").encode([image]) for path in paths]

    for other in others:
        np.testing.assert_array_equal(other, first)


def test_the_weights_outlive_their_file(tmp_path: Path) -> None:
    path = saved(as_whole_sam(encoder_state()), tmp_path / "sam.pth")
    image = np.random.default_rng(0).integers(0, 256, (512, 512, 3), dtype=np.uint8)
    encoder = open_encoder("tiny", weights=path, device="cpu")
    before = encoder.encode([image])

    path.write_bytes(bytes(path.stat().st_size))

    np.testing.assert_array_equal(encoder.encode([image]), before)


def test_a_truncated_checkpoint_says_so(tmp_path: Path) -> None:
    for zipped in (True, False):
        path = saved(encoder_state(), tmp_path / f"{zipped}.pth", _use_new_zipfile_serialization=zipped)
        os.truncate(path, path.stat().st_size // 2)

        assert "truncated or damaged" in message_of_opening(path)


@pytest.mark.parametrize("content", [b"", b"<html>404</html>", pickle.dumps({"a": 1}, protocol=4), bytes(1000)])
def test_a_file_that_is_no_checkpoint_is_refused_with_its_size(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "sam.pth"
    path.write_bytes(content)

    assert f"({len(content):,} bytes)" in message_of_opening(path)


class TouchesAFile:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (str(self.path), "w")


def test_code_in_a_checkpoint_is_named_and_not_run(tmp_path: Path) -> None:
    path = saved({**encoder_state(), "extra": TouchesAFile(tmp_path / "ran")}, tmp_path / "sam.pth")

    message = message_of_opening(path)

    assert "pickled code (io.open)" in message
    assert not (tmp_path / "ran").exists()


def test_a_pickled_module_is_refused_with_the_way_out(tmp_path: Path) -> None:
    message = message_of_opening(saved(torch.nn.Linear(2, 2), tmp_path / "sam.pth"))

    assert "torch.nn.modules.linear.Linear" in message
    assert "state_dict" in message


def test_a_checkpoint_of_another_architecture_is_recognised(tmp_path: Path) -> None:
    message = message_of_opening(saved(as_whole_sam(encoder_state(SMALL)), tmp_path / "sam.pth"))

    assert "is a small checkpoint (width 32, 1 blocks), asked for tiny (width 16, 2 blocks)" in message
    assert "Ask for small" in message


def test_vit_l_and_vit_h_are_recognised_by_their_width_and_blocks(tmp_path: Path) -> None:
    for name, width, depth in (("vit_l", 1024, 24), ("vit_h", 1280, 32)):
        state = {f"blocks.{i}.norm1.weight": torch.ones(width) for i in range(depth)}
        path = saved(as_whole_sam({"pos_embed": torch.ones(1, 1, 1, width), **state}), tmp_path / f"{name}.pth")

        assert f"is a {name} checkpoint" in message_of_opening(path, "vit_b")


def test_a_vit_of_unknown_size_and_an_encoder_that_is_no_vit_get_their_own_messages(tmp_path: Path) -> None:
    unknown = {"pos_embed": torch.ones(1, 1, 1, 99), "blocks.0.norm1.weight": torch.ones(99)}
    message = message_of_opening(saved(as_whole_sam(unknown), tmp_path / "unknown.pth"))
    assert "an unknown ViT checkpoint (width 99, 1 blocks)" in message

    mobile = {"patch_embed.seq.0.c.weight": torch.ones(3)}
    message = message_of_opening(saved(as_whole_sam(mobile), tmp_path / "mobile.pth"))
    assert "no pos_embed" in message
    assert "onnx:FILE" in message


def test_missing_and_unexpected_tensors_are_counted_and_a_few_named(tmp_path: Path) -> None:
    state = encoder_state()
    for key in [key for key in state if key.startswith("neck.")]:
        state[f"old_{key}"] = state.pop(key)
    del state["blocks.0.norm1.bias"]

    message = message_of_opening(saved(as_whole_sam(state), tmp_path / "sam.pth"))

    assert "7 missing (blocks.0.norm1.bias, neck.0.weight, neck.1.weight, ...)" in message
    assert "6 unexpected (old_neck.0.weight, old_neck.1.weight, old_neck.1.bias, ...)" in message


def test_a_tensor_of_another_shape_is_named_with_both_shapes(tmp_path: Path) -> None:
    state = encoder_state()
    state["neck.0.weight"] = torch.ones(128, 16, 1, 1)

    message = message_of_opening(saved(as_whole_sam(state), tmp_path / "sam.pth"))

    assert "1 (neck.0.weight of shape (128, 16, 1, 1), expected (256, 16, 1, 1))" in message


@pytest.mark.parametrize("bad", [torch.full((16,), torch.nan), torch.ones(16, dtype=torch.int64)])
def test_weights_that_are_not_finite_floats_are_named(tmp_path: Path, bad: torch.Tensor) -> None:
    state = encoder_state()
    state["blocks.1.norm2.bias"] = bad

    message = message_of_opening(saved(as_whole_sam(state), tmp_path / "sam.pth"))

    assert "1 (blocks.1.norm2.bias with values that are not finite floats)" in message


@pytest.mark.parametrize(
    ("content", "found"), [({"state_dict": {}}, "entries are (state_dict)"), ([1, 2], "a list"), ({}, "entries")]
)
def test_a_file_with_other_contents_is_refused_with_its_contents(tmp_path: Path, content: object, found: str) -> None:
    message = message_of_opening(saved(content, tmp_path / "sam.pth"))

    assert found in message
    assert "image_encoder.*" in message


def test_the_preprocessing_and_the_network_agree_on_where_the_image_lies(tmp_path: Path) -> None:
    """Below a wide image the network reads zeros, so the embedding there is that of a blank input."""
    published = published_with_drawn_weights(TINY)
    path = saved(as_whole_sam(dict(published.state_dict())), tmp_path / "sam.pth")
    wide = np.random.default_rng(0).integers(0, 256, (256, 1024, 3), dtype=np.uint8)
    image_rows = 256 // 16

    embedding = open_encoder("tiny", weights=path, device="cpu").encode([wide])
    with torch.inference_mode():
        blank = published(torch.zeros(1, 3, 1024, 1024)).numpy()

    difference = np.abs(embedding - blank).max(axis=(0, 1, 3))
    reach = 1  # the neck's 3x3 convolution
    assert (difference[:image_rows] > 0.1).all()
    assert (difference[image_rows + reach :] < 1e-4).all()


def test_a_batch_too_large_for_memory_is_halved_and_the_rows_stay_the_same(tmp_path: Path) -> None:
    path = saved(as_whole_sam(encoder_state()), tmp_path / "sam.pth")
    images = list(np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8))
    one_by_one = open_encoder("tiny", weights=path, device="cpu", batch_size=1).encode(images)
    encoder = open_encoder("tiny", weights=path, device="cpu", batch_size=4)

    def run_out_of_memory(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        if type(module).__name__ == "ImageEncoderViT" and len(inputs[0]) > 1:
            torch.empty(2**55)

    with torch.nn.modules.module.register_module_forward_pre_hook(run_out_of_memory):
        rows = encoder.encode(images)

    np.testing.assert_allclose(rows, one_by_one, rtol=0, atol=1e-5)
    assert encoder.batch_size == 1


@pytest.fixture(scope="module")
def sound_bytes() -> bytes:
    buffer = io.BytesIO()
    torch.save({"image_encoder.pos_embed": torch.zeros(1, 4, 4, 8), "image_encoder.x": torch.ones(3)}, buffer)
    return buffer.getvalue()


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(flips=st.lists(st.tuples(st.integers(0, 10**6), st.integers(1, 255)), max_size=4), keep=st.floats(0, 1))
def test_changed_bytes_give_tensors_or_one_clear_error(
    sound_bytes: bytes, tmp_path: Path, flips: list[tuple[int, int]], keep: float
) -> None:
    changed = bytearray(sound_bytes)
    for at, by in flips:
        changed[at % len(changed)] ^= by
    file = tmp_path / "odd.pth"
    file.write_bytes(changed[: int(len(changed) * (1 if keep > 0.7 else keep))])

    message = "odd.pth"
    try:
        state = read_encoder_state(file)
        assert all(isinstance(name, str) and isinstance(tensor, torch.Tensor) for name, tensor in state.items())
    except EncoderError as error:
        message = str(error)
    assert "odd.pth" in message


@pytest.mark.parametrize("content", [{1: torch.zeros(3)}, {"image_encoder.pos_embed": torch.zeros(())}])
def test_keys_and_shapes_of_no_checkpoint_are_refused(tmp_path: Path, content: dict[Any, torch.Tensor]) -> None:
    torch.save(content, tmp_path / "odd.pth")

    with pytest.raises(EncoderError, match=r"odd\.pth"):
        check_architecture(read_encoder_state(tmp_path / "odd.pth"), "vit_b", tmp_path / "odd.pth")
