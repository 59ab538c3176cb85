"""Panels of figures 2 and 3 of paper A: embeddings of several encoders, and layers of one network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from nucseg.figures.features import FeaturePanel
from nucseg.figures.nuclei import Image
from nucseg.figures.pca_colours import FeatureMap, PrincipalColours, principal_colours, without_padding
from nucseg.metrics.instances import InstanceMap

if TYPE_CHECKING:
    from torch import Tensor

    from nucseg.models.features import Features


def encoder_panels(
    image: Image,
    truth: InstanceMap,
    size: tuple[int, int],
    embeddings: Mapping[str, tuple[FeatureMap, PrincipalColours]],
) -> list[FeaturePanel]:
    """Make panels of the image, its true nuclei and its embedding by each encoder as colours (paper A, figure 2).

    Args:
        image: (S, S, 3), prepared.
        truth: (S, S), prepared.
        size: native (H, W) of the image, to leave out the padding.
        embeddings: encoder -> embedding (256, G, G), and the colours fitted to this encoder.
    """
    picture = without_padding(image.transpose(2, 0, 1), size).transpose(1, 2, 0)
    nuclei = without_padding(truth[None], size)[0]
    return [
        FeaturePanel(title="image", rgb=picture),
        FeaturePanel(title="truth", rgb=picture, outlined=nuclei),
        *(
            FeaturePanel(title=name, rgb=colours.paint(without_padding(embedding, size)), explained=colours.explained)
            for name, (embedding, colours) in embeddings.items()
        ),
    ]


def network_panels(features: Features, size: tuple[int, int]) -> list[FeaturePanel]:
    """Make panels of a network's layers as colours, each by its own components (paper A, figure 3, (a) to (h)).

    Encoder levels 1 to 5; with guidance, also the embedding, its concatenation with the latent (channels standardised,
    see `Features.concatenation`) and the fused features at the bottleneck. If finer levels are guided too, the finest
    comes last.

    Args:
        features: of one image, B = 1.
        size: native (H, W) of the image, to leave out the padding.
    """
    panels = [_panel(f"level {number}", level, size) for number, level in enumerate(features.levels, start=1)]
    if features.embedding is None or features.concatenation is None:
        return panels
    panels.append(_panel("embedding", features.embedding, size))
    panels.append(_panel("concatenated", features.concatenation, size, standardise=True))
    panels.append(_panel("after fusion", features.fused[-1], size))
    finest, bottleneck = min(features.changed, default=0), len(features.fused) - 1
    if features.changed and finest < bottleneck:
        panels.append(_panel(f"level {finest + 1}, guided", features.fused[finest], size))
    return panels


def _panel(title: str, layer: Tensor, size: tuple[int, int], *, standardise: bool = False) -> FeaturePanel:
    array: FeatureMap = layer[0].float().cpu().numpy().astype(np.float32, copy=False)
    rgb, explained = principal_colours(without_padding(array, size), standardise=standardise)
    return FeaturePanel(title=title, rgb=rgb, explained=explained)
