"""Preprocessing equals SamPredictor's."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from nucseg.encoders import open_encoder
from nucseg.encoders.preprocess import check_image, resize, to_input
from nucseg.encoders.sam import normalised
from nucseg.errors import EncoderError


def as_sam_predictor_does(image):
    """SamPredictor.set_image up to the encoder, step by step, in the libraries it uses."""
    # ResizeLongestSide.get_preprocess_shape
    scale = 1024 * 1.0 / max(image.shape[0], image.shape[1])
    new_h, new_w = int(image.shape[0] * scale + 0.5), int(image.shape[1] * scale + 0.5)
    # ResizeLongestSide.apply_image: torchvision's resize of a PIL image, which is PIL's own, bilinear
    resized = np.array(Image.fromarray(image, mode=None).resize((new_w, new_h), Image.BILINEAR))
    # SamPredictor.set_image
    tensor = torch.as_tensor(resized).permute(2, 0, 1).contiguous()[None]
    # Sam.preprocess
    mean = torch.Tensor([123.675, 116.28, 103.53]).view(-1, 1, 1)
    std = torch.Tensor([58.395, 57.12, 57.375]).view(-1, 1, 1)
    normalised = (tensor - mean) / std
    return F.pad(normalised, (0, 1024 - new_w, 0, 1024 - new_h))


@pytest.mark.parametrize(
    ("height", "width"), [(512, 512), (256, 320), (1024, 1024), (1500, 700), (37, 101), (1, 1), (3, 1025)]
)
def test_any_size_is_preprocessed_as_sam_predictor_does(height: int, width: int) -> None:
    image = np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)

    np.testing.assert_array_equal(to_input(image), as_sam_predictor_does(image)[0].numpy())


@pytest.mark.shared
def test_a_real_image_is_preprocessed_as_sam_predictor_does(shared: Path) -> None:
    path = shared / "data" / "nuinsseg" / "human oesophagus" / "tissue images" / "human_oesophagus_01.png"
    image = np.asarray(Image.open(path).convert("RGB"))

    np.testing.assert_array_equal(to_input(image), as_sam_predictor_does(image)[0].numpy())


def test_a_view_with_its_channels_reversed_is_read_as_what_it_shows() -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)

    np.testing.assert_array_equal(to_input(image[:, ::-1, ::-1]), to_input(image[:, ::-1, ::-1].copy()))


SIZES = [(512, 512), (256, 320), (1024, 1024), (1500, 700), (37, 101)]


def images_of(*sizes: tuple[int, int]) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]


def test_what_is_normalised_on_a_device_is_what_to_input_gives_bit_by_bit() -> None:
    images = images_of(*SIZES)

    found = normalised([resize(image) for image in images], torch.device("cpu"))

    assert found.is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_array_equal(found.numpy(), np.stack([to_input(image) for image in images]))


@pytest.mark.parametrize("size", SIZES)
def test_an_image_resized_before_is_not_touched_again(size: tuple[int, int]) -> None:
    (image,) = images_of(size)
    resized = resize(image)

    assert resize(resized) is resized
    np.testing.assert_array_equal(to_input(resized), to_input(image))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_an_image_resized_beforehand_has_its_originals_embedding_bit_by_bit(precision: str) -> None:
    encoder = open_encoder("random", device="cpu", precision=precision)
    images = images_of((512, 512), (200, 320))

    np.testing.assert_array_equal(encoder.encode([resize(image) for image in images]), encoder.encode(images))


@pytest.mark.parametrize(
    ("image", "named"),
    [
        (np.zeros((8, 8, 3), np.float32), r"float32 of shape \(8, 8, 3\).*uint8"),
        (np.zeros((8, 8, 3), np.uint16), r"uint16 of shape \(8, 8, 3\).*uint8"),
        (np.zeros((8, 8), np.uint8), r"uint8 of shape \(8, 8\).*\(H, W, 3\)"),
        (np.zeros((8, 8, 4), np.uint8), r"\(8, 8, 4\).*Convert it to RGB"),
        (np.zeros((3, 8, 8), np.uint8), r"\(3, 8, 8\)"),
        (np.zeros((0, 8, 3), np.uint8), r"\(0, 8, 3\)"),
        (np.zeros((1, 5000, 3), np.uint8), "too long and thin"),
        ([[0]], "a list"),
    ],
)
def test_what_is_not_uint8_rgb_is_refused_by_what_it_is(image, named: str) -> None:
    with pytest.raises(EncoderError, match=f"Image 5 of the batch is .*{named}"):
        check_image(image, 5)
