"""Only what a row reads and the cache lacks is embedded."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from nucseg.views.registry import D4_VIEWS
from nucseg_cache import Store
from nucseg_pipeline.ablate import prerequisites
from nucseg_pipeline.config import EmbedConfig, TrainConfig
from nucseg_pipeline.runs.selection import ENOUGH_EXACT_IMAGES

Configure = Callable[..., TrainConfig]
N_IMAGES = 12


@pytest.fixture
def embed_configs(monkeypatch: pytest.MonkeyPatch) -> list[EmbedConfig]:
    """The configurations that stage one is called with; it writes nothing and returns ten new embeddings."""
    configs: list[EmbedConfig] = []

    def embed(config: EmbedConfig, progress: object) -> SimpleNamespace:
        configs.append(config)
        return SimpleNamespace(n_encoded=10)

    monkeypatch.setattr(prerequisites, "embed", embed)
    return configs


def embed_orientations(cache: Path, rows: list[int]) -> None:
    store = Store.open(cache / "synthetic.zarr", mode="r+")
    (key,) = store.keys()
    for view in D4_VIEWS:
        store.embeddings(key, view, described={}).write(rows, np.ones((len(rows), 256, 64, 64), np.float16))


@pytest.mark.parametrize(
    ("wanted", "views"),
    [
        ({}, []),
        ({"fusion": "none"}, []),
        ({"replay": "learned", "fusion": "none"}, []),
        ({"replay": "learned", "augmentation": "none"}, []),
        ({"replay": "learned"}, [("d4", ENOUGH_EXACT_IMAGES)]),
        ({"views": "d4"}, [("d4", None)]),
        ({"views": "d4", "replay": "learned"}, [("d4", None)]),
        ({"views": "stain"}, [("stain", None)]),
    ],
)
def test_the_views_that_a_row_reads_are_requested(
    cache: Path, training: Configure, embed_configs: list[EmbedConfig], wanted: dict[str, str], views: list[object]
) -> None:
    n_encoded = prerequisites.embed_missing(training(cache=str(cache), **wanted), lambda *_: None)

    assert [(config.views, config.view_images) for config in embed_configs] == views
    assert n_encoded == 10 * len(views)


@pytest.mark.parametrize(
    ("wanted", "n_orientations", "is_enough"),
    [
        ({"replay": "learned"}, N_IMAGES, True),
        ({"replay": "learned"}, N_IMAGES - 1, False),
        ({"views": "d4"}, N_IMAGES, True),
        ({"views": "d4"}, N_IMAGES - 1, False),
        ({"views": "d4", "replay": "learned"}, N_IMAGES - 1, False),
    ],
)
def test_orientations_that_are_there_are_not_requested_again(
    cache: Path,
    training: Configure,
    embed_configs: list[EmbedConfig],
    wanted: dict[str, str],
    n_orientations: int,
    is_enough: bool,
) -> None:
    embed_orientations(cache, list(range(n_orientations)))

    prerequisites.embed_missing(training(cache=str(cache), **wanted), lambda *_: None)

    assert (not embed_configs) is is_enough
