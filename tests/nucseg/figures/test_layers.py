"""The panels of the papers' figures 2 and 3, from maps drawn by hand."""

import numpy as np
import torch

from nucseg.figures import PrincipalColours, encoder_panels, network_panels, principal_colours
from nucseg.models.features import Features

SIZE = (256, 320)


def maps(guided: bool = True, changed: tuple[int, ...] = (4,)) -> Features:
    torch.manual_seed(0)
    levels = tuple(torch.randn(1, 4 * 2**i, 64 >> i, 64 >> i) for i in range(5))
    return Features(
        levels=levels,
        embedding=torch.randn(1, 256, 64, 64) if guided else None,
        concatenation=torch.randn(1, 320, 4, 4) if guided else None,
        fused=tuple(x + 1 if i in changed else x for i, x in enumerate(levels)) if guided else (),
    )


def test_a_guided_network_has_the_eight_panels_of_the_paper() -> None:
    assert [panel.title for panel in network_panels(maps(), SIZE)] == [
        *("level 1", "level 2", "level 3", "level 4", "level 5"),
        *("embedding", "concatenated", "after fusion"),
    ]


def test_the_finest_guided_level_comes_last() -> None:
    features = maps(changed=(2, 3, 4))
    last = network_panels(features, (64, 64))[-1]

    assert last.title == "level 3, guided"
    np.testing.assert_array_equal(last.rgb, principal_colours(features.fused[2][0].numpy())[0])


def test_a_network_without_guidance_has_only_its_levels() -> None:
    assert len(network_panels(maps(guided=False), SIZE)) == 5


def test_no_panel_contains_padding() -> None:
    panels = network_panels(maps(), SIZE)

    assert [panel.rgb.shape[:2] for panel in panels] == [
        *((51, 64), (26, 32), (13, 16), (6, 8), (3, 4)),
        *((51, 64), (3, 4), (3, 4)),
    ]


def test_only_the_concatenation_is_standardised() -> None:
    features = maps()
    panels = {panel.title: panel for panel in network_panels(features, (64, 64))}

    joined, level = features.concatenation[0].numpy(), features.levels[1][0].numpy()
    np.testing.assert_array_equal(panels["concatenated"].rgb, principal_colours(joined, standardise=True)[0])
    np.testing.assert_array_equal(panels["level 2"].rgb, principal_colours(level)[0])


def test_encoders_follow_the_image_and_its_truth() -> None:
    rng = np.random.default_rng(0)
    image, truth = rng.integers(0, 255, (64, 64, 3), dtype=np.uint8), np.zeros((64, 64), np.int32)
    truth[3:9, 3:9] = 7
    embedding = rng.normal(size=(256, 64, 64)).astype(np.float16)
    colours = PrincipalColours.fit([embedding])

    first, second, third = encoder_panels(image, truth, SIZE, {"vit_b": (embedding, colours)})

    np.testing.assert_array_equal(first.rgb, image[:51])
    np.testing.assert_array_equal(second.outlined, truth[:51])
    assert (first.title, second.title, third.title) == ("image", "truth", "vit_b")
    np.testing.assert_array_equal(third.rgb, colours.paint(embedding)[:51])
    np.testing.assert_array_equal(third.explained, colours.explained)
