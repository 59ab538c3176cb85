"""Which motions are measured, and how they depend on seed and image."""

from pathlib import Path

import pytest
import torch

from nucseg.errors import ConfigError
from nucseg.replay import Motions, geometry_names
from nucseg_pipeline.fidelity.motions import BENDS, TURNS, known_motions, motion_names, select_motions

SIDE = 64


def test_the_default_motions_are_all_turns_the_bends_of_papers_with_and_without_d4_and_mild_others() -> None:
    families = {name: spec.family for name, spec in known_motions().items()}

    assert [spec.name for spec in select_motions([])] == list(families)
    assert list(families.values()).count(TURNS) == 7
    assert [name for name, family in families.items() if family == BENDS] == [
        *("affine", "d4, then affine", "elastic", "d4, then elastic")
    ]
    assert len(families) == 14


def test_d4_means_its_seven_elements_each_once() -> None:
    specs = select_motions(["half turn", "d4"])

    assert sorted(spec.element for spec in specs) == list(range(1, 8))
    assert specs[0].name == "half turn"


def test_a_file_of_transforms_is_a_motion_of_its_own(tmp_path: Path) -> None:
    file = tmp_path / "mine [1].toml"
    file.write_text('[[transform]]\nname = "Affine"\ntranslate_percent = [0.25, 0.25]\n')

    (spec,) = select_motions([str(file)])
    motions = spec.motions(0, "image", side=SIDE)

    assert (spec.name, spec.family) == (str(file), str(file))
    assert motions.elements == (0,)
    assert motions.maps is not None
    # a quarter to the right: the right edge came from three quarters, in coordinates of a square from -1 to 1
    assert motions.maps[0, 32, -1, 0] == pytest.approx(1 - 1 / SIDE - 0.5, abs=1e-4)


def test_an_unknown_motion_is_refused() -> None:
    with pytest.raises(ConfigError, match="No motion is called 'halfturn'"):
        select_motions(["halfturn"])


def test_every_recipe_of_the_package_can_be_measured() -> None:
    recipes = [name for name in geometry_names() if name not in ("none", "d4")]

    assert [spec.name for spec in select_motions(recipes)] == recipes
    assert set(recipes) <= set(motion_names())


def test_none_selects_no_motion() -> None:
    assert select_motions(["none"]) == ()


def test_a_motion_is_a_function_of_seed_image_and_spec() -> None:
    affine, turned = (known_motions()[name] for name in ("affine", "d4, then affine"))

    def drawn(motions: Motions) -> torch.Tensor:
        assert motions.maps is not None
        return motions.maps

    first = drawn(affine.motions(0, "a", side=SIDE))
    assert torch.equal(first, drawn(affine.motions(0, "a", side=SIDE)))
    for other in (affine.motions(1, "a", side=SIDE), affine.motions(0, "b", side=SIDE)):
        assert not torch.equal(first, drawn(other))
    assert len({turned.motions(0, f"image {i}", side=SIDE).elements for i in range(40)}) == 8
