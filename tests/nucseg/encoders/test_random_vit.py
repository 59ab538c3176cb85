"""The random encoder: the same everywhere for one seed, with a warning about its random weights."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nucseg.encoders import open_encoder


def noise(n: int) -> list[np.ndarray]:
    return list(np.random.default_rng(0).integers(0, 256, (n, 128, 128, 3), dtype=np.uint8))


def test_one_seed_gives_one_identity_and_one_embedding_another_seed_another() -> None:
    first, again, other = (open_encoder(spec, device="cpu") for spec in ("random", "random:0", "random:1"))

    assert first.identity == again.identity
    assert first.identity["seed"] == "0"
    assert first.identity["weights"] != other.identity["weights"]
    np.testing.assert_array_equal(first.encode(noise(1)), again.encode(noise(1)))
    assert np.abs(first.encode(noise(1)) - other.encode(noise(1))).max() > 0.1


def test_its_weights_are_those_of_every_machine() -> None:
    """A change of the digest orphans the embeddings cached with it."""
    assert open_encoder("random", device="cpu").identity["weights"] == "4ed35bfd0ced6bc8980a8eb32975c56e"


def test_opening_it_leaves_torchs_random_state_alone() -> None:
    before = torch.get_rng_state()
    open_encoder("random:3", device="cpu")

    assert torch.equal(torch.get_rng_state(), before)


def test_it_warns_that_it_carries_no_knowledge() -> None:
    assert "carry no knowledge" in open_encoder("random", device="cpu").note


@pytest.mark.shared
def test_its_embeddings_vary_over_cells_and_over_images(shared: Path) -> None:
    folder = shared / "data" / "nuinsseg" / "human oesophagus" / "tissue images"
    images = [np.asarray(Image.open(path).convert("RGB")) for path in sorted(folder.glob("*.png"))[:2]]

    rows = open_encoder("random", device="cpu").encode(images)

    assert np.isfinite(rows).all()
    assert rows.std(axis=(2, 3)).mean() > 0.1
    assert np.abs(rows[0] - rows[1]).mean() > 0.1
    assert np.abs(rows).max() < 100  # fits float16 with room
