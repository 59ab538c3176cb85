"""Augmentations: what is drawn, what is refused, and that one map moves everything as albumentations moves an image."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xxhash
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nucseg.errors import ConfigError
from nucseg.replay import Geometry, Replay, d4, geometry_names
from nucseg.replay.coordinate_maps import pooled, sources
from nucseg.replay.transforms import TRANSFORMS

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"

# a busy machine is no reason to fail
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=12)

RIGID = [{"name": name} for name in ("D4", "HorizontalFlip", "VerticalFlip", "Transpose", "RandomRotate90")]
SMOOTH: list[dict[str, Any]] = [
    {"name": "Affine", "rotate": [-30, 30], "scale": [0.8, 1.25], "shear": [-8, 8], "translate_percent": [-0.1, 0.1]},
    {"name": "ElasticTransform", "alpha": 60, "sigma": 10},
    {"name": "Perspective", "scale": [0.02, 0.08]},
    {"name": "RandomResizedCrop", "scale": [0.6, 1.0]},
    {"name": "GridDistortion", "num_steps": 4, "distort_limit": [-0.2, 0.2]},
    {"name": "Rotate", "limit": [-45, 45]},
    {"name": "CropAndPad", "percent": [-0.1, 0.1]},
]
NEEDED: dict[str, dict[str, Any]] = {"CropAndPad": {"percent": 0.1}}


def geometry(*steps: dict[str, Any]) -> Geometry:
    return Geometry.named(json.dumps(list(steps)))


def moved_by_albumentations(augmentation: Geometry, image: np.ndarray, seed: int) -> np.ndarray:
    """The image moved by the library alone, with the draw of our map; outside it is 0."""
    compose = augmentation._compose(len(image))
    compose.set_random_seed(xxhash.xxh3_64_intdigest(f"{seed}/0/image".encode()) % 2**32)
    moved: np.ndarray = compose(image=image)["image"]
    return moved.copy()


def chains(members: list[dict[str, Any]]) -> st.SearchStrategy[list[dict[str, Any]]]:
    """Sequences and choices of transforms, with probabilities."""
    transform, p = st.sampled_from(members), st.sampled_from([0.5, 1.0])
    choice = st.fixed_dictionaries({"one_of": st.lists(transform, min_size=1, max_size=3), "p": p})
    return st.lists(st.one_of(transform, choice), min_size=1, max_size=3)


@unhurried
@given(chains(RIGID), st.integers(0, 2**31))
def test_any_composition_of_flips_and_turns_is_bit_exact(steps: list[dict[str, Any]], seed: int) -> None:
    image = np.random.default_rng(0).random((256, 256, 3), np.float32)
    augmentation = geometry(*steps)

    motions = augmentation.motions(seed, 0, ["image"], side=256)

    assert motions.mapped == ()
    expected = moved_by_albumentations(augmentation, image, seed)
    moved = motions.apply(torch.from_numpy(image).movedim(-1, 0)[None])[0].movedim(0, -1).numpy()
    np.testing.assert_array_equal(moved, expected)
    embedding = torch.randn(1, 4, 64, 64)
    assert torch.equal(Replay()(embedding, motions), d4.apply(embedding, motions.elements[0]))


@unhurried
@given(chains(SMOOTH + RIGID), st.integers(0, 2**31))
def test_embedding_and_image_move_as_albumentations_moves_the_image(steps: list[dict[str, Any]], seed: int) -> None:
    side, grid = 256, 64
    y, x = np.mgrid[:side, :side] / side
    field = np.stack([np.sin(4 * x + 1), np.cos(5 * y + 2 * x), x * y], axis=-1).astype(np.float32)
    augmentation = geometry(*steps)
    motions = augmentation.motions(seed, 0, ["image"], side=side)
    by_library = torch.from_numpy(moved_by_albumentations(augmentation, field, seed)).movedim(-1, 0)

    image = torch.from_numpy(field).movedim(-1, 0)[None]
    moved = motions.apply(image)[0]
    cells = torch.nn.functional.avg_pool2d(image, side // grid)
    replayed = Replay()(cells, motions)[0]

    maps = augmentation.map_of(seed, 0, "image")[None]
    whole = maps[0, ..., 2] > 0.999
    whole_cells = torch.nn.functional.avg_pool2d(whole[None, None].float(), side // grid)[0, 0] == 1
    # largest slope 7 and curvature 29 over the frame; a pixel is 1/256 of it, and the library rounds to 1/32 pixel
    assert _largest(moved - by_library, whole) < 0.04
    pooled_by_library = torch.nn.functional.avg_pool2d(by_library[None], side // grid)[0]
    assert _largest(replayed - pooled_by_library, whole_cells) < 0.5 * 7 / 64


def _largest(difference: torch.Tensor, where: torch.Tensor) -> float:
    inside = difference[:, where].abs()
    return float(inside.max()) if inside.numel() else 0.0


@unhurried
@given(chains(SMOOTH), st.integers(0, 2**31))
def test_instance_ids_never_blend_and_what_came_from_outside_is_marked(steps: list[dict[str, Any]], seed: int) -> None:
    instances = torch.arange(16, dtype=torch.int32).repeat_interleave(16).repeat(256, 1)[None, None] * 1000 + 7
    motions = geometry(*steps).motions(seed, 0, ["image"], side=256)

    moved = motions.apply(instances, nearest=True, outside=0)
    ignored = motions.apply(torch.zeros_like(instances), nearest=True, outside=1)

    assert set(moved.unique().tolist()) <= {0, *instances.unique().tolist()}
    assert torch.equal(moved == 0, ignored == 1)


@pytest.mark.parametrize("name", TRANSFORMS)
def test_every_transform_of_the_list_gives_a_map_of_the_same_side(name: str) -> None:
    drawn = torch.stack([geometry({"name": name, **NEEDED.get(name, {})}).map_of(0, 0, str(i)) for i in range(3)])

    places, inside = sources(drawn)

    assert drawn.shape == (3, 256, 256, 3)
    assert inside.float().mean() > 0.5
    assert places.abs().max() <= 1  # nothing points out of the frame
    cells, _ = sources(pooled(drawn, 64))
    assert cells.abs().max() <= 1


def test_a_draw_depends_on_seed_epoch_and_id_alone() -> None:
    papers = Geometry.named("papers")
    whole = papers.motions(3, 1, [str(i) for i in range(8)], side=64)
    part = Geometry.named("papers").motions(3, 1, ["5"], side=64)

    assert part.elements[0] == whole.elements[5]
    for other in ((4, 1), (3, 2)):
        assert papers.motions(*other, [str(i) for i in range(8)], side=64).elements != whole.elements
    assert torch.equal(papers.map_of(3, 1, "5", side=64), papers.map_of(3, 1, "5", side=64))


def test_half_of_the_papers_samples_have_a_map_and_all_an_element() -> None:
    motions = Geometry.named("papers").motions(0, 0, [str(i) for i in range(160)], side=32)

    assert 50 < len(motions.mapped) < 110
    counts = torch.bincount(torch.tensor(motions.elements), minlength=8)
    assert counts.min() > 5


def test_d4_is_drawn_for_each_id_and_none_moves_nothing() -> None:
    ids = [str(i) for i in range(32)]

    assert Geometry.named("d4").motions(7, 2, ids, side=256).elements == tuple(d4.draw(7, 2, name) for name in ids)
    assert Geometry.named("none").motions(7, 2, ids, side=256).elements == (0,) * 32


def test_probabilities_are_those_of_the_recipe() -> None:
    steps = {"one_of": [{"name": "HorizontalFlip", "p": 0.75}, {"name": "VerticalFlip", "p": 0.25}], "p": 0.5}
    drawn = geometry(steps).motions(0, 0, [str(i) for i in range(800)], side=8).elements

    shares = [drawn.count(element) / 800 for element in (0, 1, 2)]
    assert shares == pytest.approx([0.5, 0.375, 0.125], abs=0.06)


def test_the_text_of_a_file_is_its_transforms(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('[[transform]]\nname = "Affine"\nrotate = [-5, 5]\np = 0.5\n')

    read = Geometry.named(str(file))

    assert json.loads(read.text) == [{"name": "Affine", "rotate": [-5, 5], "p": 0.5}]
    assert Geometry.named(read.text) == read
    assert geometry_names() == ("none", "d4", "papers", "scale")


@pytest.mark.parametrize("name", ["CLAHE", "RandomGamma", "HEStain", "GaussianBlur", "ColorJitter"])
def test_a_photometric_transform_is_refused_with_the_reason(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name}.*changes colours.*--photometric"):
        geometry({"name": name})


@pytest.mark.parametrize("name", ["CoarseDropout", "Morphological", "RandomGridShuffle", "PadIfNeeded"])
def test_a_transform_that_does_more_than_move_pixels_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="cannot be replayed on an embedding"):
        geometry({"name": name})


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ({"name": "Afine"}, "not a transform of albumentations"),
        ({"name": "Affine", "rotat": 3}, "no parameter 'rotat'. Did you mean 'rotate'"),
        ({"name": "Affine", "fill": 3}, "fill of Affine.*cannot be set"),
        ({"name": "ElasticTransform", "border_mode": 4}, "border_mode.*from outside the image are ignored"),
        ({"name": "RandomResizedCrop", "size": [64, 64]}, "the size is kept"),
        ({"name": "Affine", "rotate": "far"}, "cannot be drawn.*valid number"),
        ({"name": "Affine", "p": 1.5}, "p in the augmentation must be between 0 and 1, got 1.5"),
        ({"name": "Affine", "p": True}, "between 0 and 1, got True"),
        ({"one_of": []}, "one_of in the augmentation must be a list of transforms"),
        ({"one_of": [{"name": "CLAHE"}]}, "CLAHE.*changes colours"),
        ({"one_of": [{"name": "D4"}], "rotate": 3}, "with only p next to it"),
        ({"name": "D4", "one_of": []}, "one of name, one_of, all_of"),
        ({}, "one of name, one_of, all_of"),
        ({"one_of": [{"name": "D4", "p": 0}]}, "needs a transform with p above 0, but all are 0"),
        ({"name": "GridDistortion", "num_steps": 300}, "cannot be drawn"),
        ({"name": "Rotate", "limit": float("nan")}, "must consist of finite numbers.*got nan"),
        ({"all_of": [{"name": "Affine", "rotate": "far", "p": 0.01}]}, "cannot be drawn"),
    ],
)
def test_what_cannot_be_drawn_is_refused(step: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        geometry(step)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[[transform]", "is not TOML"),
        ("transform = 3", r"must be a list of \[\[transform\]\], got transform"),
        ("", "got nothing"),
        ("[[transform]]\nname = 'D4'\n[more]\n", "got transform, more"),
        ("[[transform]]\nname = 'Rotate'\nlimit = 2020-01-01\n", "limit of Rotate .*must consist of finite numbers"),
    ],
)
def test_a_file_that_is_no_recipe_is_refused(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(content)

    with pytest.raises(ConfigError, match=message):
        Geometry.named(str(file))


def test_a_file_whose_name_begins_with_a_bracket_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "[mine].toml").write_text('[[transform]]\nname = "HorizontalFlip"\n')
    monkeypatch.chdir(tmp_path)

    assert json.loads(Geometry.named("[mine].toml").text) == [{"name": "HorizontalFlip"}]
    with pytest.raises(ConfigError, match="neither a file nor JSON"):
        Geometry.named("[other].toml")


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"'rotation' is no known name, .* no such file\. Known: none, d4, papers"):
        Geometry.named("rotation")


def test_a_transform_that_leaves_another_size_is_refused_when_it_is_drawn() -> None:
    geometry = Geometry('[{"name": "Resize", "height": 8, "width": 4}]')
    with pytest.raises(ConfigError, match="changes 16 x 16 to 4 x 8 pixels"):
        geometry.map_of(0, 0, "a", side=16)


def test_scale_changes_the_size_of_half_of_the_images_by_the_factors_of_its_recipe() -> None:
    maps = [Geometry.named("scale").map_of(0, 0, str(i), side=128) for i in range(120)]
    # a step of one pixel in the result is 1 / factor pixels in the source; the first two channels are positions
    down, right = (
        torch.stack(
            [
                torch.linalg.vector_norm(block.diff(dim=axis).mean((0, 1)))
                for block in (m[54:74, 54:74, :2] for m in maps)
            ]
        )
        for axis in (0, 1)
    )
    torch.testing.assert_close(down, right, rtol=1e-3, atol=0)
    factors = (2 / 128 / down).numpy()
    moved = np.abs(factors - 1) > 1e-3
    assert 0.35 < moved.mean() < 0.65
    assert 0.69 < factors.min() < 0.8
    assert 1.3 < factors.max() < 1.41


def test_recipes_that_runs_know_by_name_keep_their_content() -> None:
    assert Geometry.named("papers").text == json.dumps(
        [
            {"name": "D4"},
            {
                "one_of": [
                    {
                        "name": "Affine",
                        "rotate": [-15, 15],
                        "scale": [0.9, 1.1],
                        "shear": [-5, 5],
                        "translate_percent": [-0.05, 0.05],
                    },
                    {"alpha": 60, "name": "ElasticTransform", "sigma": 8},
                ],
                "p": 0.5,
            },
        ],
        sort_keys=True,
    )
