"""The layers of an image on the page."""

import base64
import io
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image

from nucseg.figures import EXTRA, HARMED, HELPED, IGNORED, MISSED
from nucseg_pipeline.evaluation.scored_images import ScoredImage
from nucseg_pipeline.report.image_layers import MAX_PX, GalleryImage, image_layers

TRUTH = np.zeros((20, 30), np.int32)
TRUTH[2:8, 2:8], TRUTH[10:16, 10:18] = 1, 2
FOUND = np.zeros((20, 30), np.int32)
FOUND[2:8, 4:10] = 1
IGNORE = np.zeros((20, 30), bool)
IGNORE[:, 28:] = True


def entry(truth: np.ndarray, found: dict[str, np.ndarray], ignore: np.ndarray, **more: Any) -> GalleryImage:
    image = np.random.default_rng(0).integers(0, 255, (*truth.shape, 3), dtype=np.uint8)
    scored = ScoredImage(
        id="one", group="", stratum="", image_digest=b"", mask_digest=b"", image=image, instances=truth, ignore=ignore,
        probability=np.zeros(truth.shape, np.float32), scale=1.0, diagonal_px=1.0,
    )  # fmt: skip
    scores = {name: cast(Any, Scores(name)) for name in found}
    return GalleryImage(scored, "best", found, scores, **more)


class Scores:
    def __init__(self, name: str) -> None:
        self.name, self.id, self.n_true = name, "one", 2
        self.images = [self]


def opened(address: str) -> np.ndarray:
    kind, _, content = address.partition(";base64,")
    assert kind in ("data:image/png", "data:image/webp")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(content))).convert("RGBA"))


def where(layer: np.ndarray, colour: str) -> np.ndarray:
    rgb = [int(colour[place : place + 2], 16) for place in (1, 3, 5)]
    return (layer[..., :3] == rgb).all(axis=-1) & (layer[..., 3] > 0)


def test_what_was_missed_added_and_not_counted_is_filled_and_nothing_else() -> None:
    (prediction,) = image_layers(entry(TRUTH, {"run": FOUND}, IGNORE)).predictions
    layer = opened(prediction.differences)

    assert np.array_equal(where(layer, MISSED), (TRUTH > 0) & (FOUND == 0))
    assert np.array_equal(where(layer, EXTRA), (TRUTH == 0) & (FOUND > 0))
    assert np.array_equal(where(layer, IGNORED), IGNORE)
    assert (layer[..., 3] > 0).sum() == 12 + 48 + 12 + 40


def test_where_guidance_helped_and_harmed_is_filled_and_counted() -> None:
    nothing = np.zeros_like(TRUTH)
    layers = image_layers(entry(TRUTH, {"plain": nothing, "led": FOUND}, IGNORE, unguided={"led": "plain"}))
    plain, led = layers.predictions

    assert plain.guidance is None
    assert led.guidance is not None
    layer = opened(led.guidance.pixels)
    assert np.array_equal(where(layer, HELPED), (TRUTH > 0) & (FOUND > 0))
    assert np.array_equal(where(layer, HARMED), (TRUTH == 0) & (FOUND > 0))
    assert (led.guidance.helped_px, led.guidance.harmed_px) == (24, 12)
    assert (led.guidance.n_gained, led.guidance.n_lost) == (0, 0)  # IoU 24 / 48 is not above one half


def test_a_large_image_is_made_smaller_and_its_layers_with_it() -> None:
    truth = np.kron(TRUTH, np.ones((60, 60), np.int32))
    layers = image_layers(entry(truth, {"run": truth}, truth < 0))

    assert (layers.width, layers.height) == (MAX_PX, round(MAX_PX * 20 / 30))
    assert opened(layers.image).shape[:2] == opened(layers.predictions[0].differences).shape[:2] == (341, MAX_PX)
    assert layers.truth.count("M") == 2


def test_an_embedding_is_shown_cell_by_cell() -> None:
    colours = np.random.default_rng(1).integers(0, 255, (5, 8, 3), dtype=np.uint8)
    (prediction,) = image_layers(entry(TRUTH, {"run": FOUND}, IGNORE, embeddings={"run": colours})).predictions

    assert np.array_equal(opened(prediction.embedding)[..., :3], colours)


@pytest.mark.parametrize("name", ["differences", "embedding"])
def test_empty_layers_take_no_space(name: str) -> None:
    (prediction,) = image_layers(entry(TRUTH, {"run": TRUTH}, IGNORE)).predictions

    assert len(getattr(prediction, name)) < 400
