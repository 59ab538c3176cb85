"""Embeddings as colours and the map of images, on a store of drawn embeddings."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from sklearn.decomposition import PCA

from nucseg_cache import Store
from nucseg_pipeline.report import embedding_colours as embeddings
from nucseg_pipeline.report.embedding_colours import EmbeddingPanel, embedding_panels


@pytest.fixture
def store(pristine_cache: Path) -> Store:
    return Store.open(pristine_cache / "synthetic.zarr")


def panels(store: Store, shown: list[str], fusions: dict[str, str]) -> list[EmbeddingPanel]:
    run = SimpleNamespace(inputs=SimpleNamespace(embedding={"architecture": "random"}))
    configurations = [SimpleNamespace(name=n, is_guided=fusion != "none", first=run) for n, fusion in fusions.items()]
    test_set = SimpleNamespace(store_for=lambda _: store)
    strata = {info.id: info.stratum for info in store.table}
    return embedding_panels(cast(Any, test_set), cast(Any, configurations), shown, strata, seed=0)


def test_configurations_of_one_encoder_share_its_colours_and_the_unguided_have_none(store: Store) -> None:
    (panel,) = panels(store, ["image [1]"], {"a": "none", "b": "xgfb", "c": "concat"})

    assert panel.names == ("b", "c")
    assert "random" in panel.label
    assert panels(store, ["image [1]"], {"a": "none"}) == []


def test_the_padding_is_not_painted(store: Store) -> None:
    (panel,) = panels(store, ["image [1]", "image [2]"], {"b": "xgfb"})
    painted = panel.paint(["image [1]"])["image [1]"]

    assert painted.shape == (56, 64, 3)  # of 32 pixel rows the last four are padding
    assert painted.dtype == np.uint8
    assert np.ptp(painted) > 100


def test_images_lie_where_scikit_learn_puts_their_means(store: Store) -> None:
    (panel,) = panels(store, ["image [1]"], {"b": "xgfb"})
    key = store.find({"architecture": "random"})
    means = store.embeddings(key).read(range(store.n_rows)).astype(np.float64)[:, :, :56].mean(axis=(2, 3))
    pca = PCA(2).fit(means)

    assert panel.means is not None
    assert panel.means.ids == tuple(info.id for info in store.table)
    assert np.abs(panel.means.points) == pytest.approx(np.abs(pca.transform(means)), abs=1e-5)
    assert panel.means.explained == pytest.approx(pca.explained_variance_ratio_, rel=1e-4)


def test_of_many_images_some_are_drawn_by_chance_and_of_few_there_is_no_map(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embeddings, "MAX_MEANS", 5)
    (panel,) = panels(store, ["image [1]"], {"b": "xgfb"})
    assert panel.means is not None
    assert (len(panel.means.ids), panel.means.n_images) == (5, store.n_rows)

    monkeypatch.setattr(embeddings, "FEWEST_MEANS", 6)
    assert panels(store, ["image [1]"], {"b": "xgfb"})[0].means is None
