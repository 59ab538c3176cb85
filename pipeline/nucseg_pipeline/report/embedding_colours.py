"""The embeddings that guide networks, drawn as colours, and a map of the images by their mean embeddings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nucseg.figures import PrincipalColours, without_padding
from nucseg_cache import Key, Store
from nucseg_cache.key import label
from nucseg_pipeline.evaluation.experiments import Configuration
from nucseg_pipeline.evaluation.test_sets import TestSet

AT_ONCE = 8
"""Embeddings read at a time, about 35 MB in float32."""
STRIDE = 4
"""Colours are fitted to every fourth cell of every fourth row, 256 cells an image: neighbouring cells are similar."""
MAX_MEANS = 300
"""Images whose mean embedding is computed, at most; reading an embedding takes about 10 ms."""
FEWEST_MEANS = 4
"""With fewer images than this there is no map of them."""


@dataclass(frozen=True, eq=False)
class ImageMap:
    """The mean embedding of each image, on the first two principal components of all of them."""

    ids: tuple[str, ...]
    strata: tuple[str, ...]
    points: NDArray[np.float64]
    """(N, 2)."""
    explained: tuple[float, float]
    """Share of the variance between images in each component."""
    n_images: int
    """Number of images that these were drawn from."""


@dataclass(frozen=True, eq=False)
class EmbeddingPanel:
    """The embeddings of one encoder, which guide some of the configurations."""

    label: str
    names: tuple[str, ...]
    colours: PrincipalColours
    """Fitted to all images in the report, so that a colour means the same in each of them."""
    means: ImageMap | None
    """None if there are too few images."""
    store: Store
    key: Key

    def paint(self, ids: Sequence[str]) -> dict[str, NDArray[np.uint8]]:
        """The embedding of each image as colours, without padding: id -> (h, w, 3)."""
        return {
            image_id: np.rint(255 * self.colours.paint(features)).astype(np.uint8)
            for image_id, features in _read(self.store, self.key, ids)
        }


def embedding_panels(
    test_set: TestSet,
    configurations: Sequence[Configuration],
    shown: Sequence[str],
    strata: Mapping[str, str],
    seed: int,
) -> list[EmbeddingPanel]:
    """Find the encoders that guide configurations, fit colours to their embeddings, and map images by their means.

    `shown` are the ids of the images that are drawn, at least one; `seed` chooses images where there are too many.
    """
    found: dict[tuple[str, str], tuple[Store, Key, list[str]]] = {}
    for configuration in configurations:
        if configuration.is_guided:
            store = test_set.store_for(configuration.first)
            key = store.find(configuration.first.inputs.embedding)
            found.setdefault((store.location, key.hash), (store, key, []))[2].append(configuration.name)
    return [_panel(store, key, tuple(names), shown, strata, seed) for store, key, names in found.values()]


def _panel(
    store: Store, key: Key, names: tuple[str, ...], shown: Sequence[str], strata: Mapping[str, str], seed: int
) -> EmbeddingPanel:
    mapped = _some(list(strata), seed)
    means, cells = {}, {}
    for image_id, features in _read(store, key, dict.fromkeys((*mapped, *shown))):
        means[image_id] = features.mean(axis=(1, 2), dtype=np.float64)
        if image_id in shown:
            cells[image_id] = features[:, ::STRIDE, ::STRIDE].copy()
    colours = PrincipalColours.fit(list(cells.values()))
    return EmbeddingPanel(label(key.fields), names, colours, _map(mapped, means, strata), store, key)


def _map(ids: Sequence[str], means: Mapping[str, NDArray[np.float64]], strata: Mapping[str, str]) -> ImageMap | None:
    from sklearn.decomposition import PCA

    table = np.stack([means[image_id] for image_id in ids])
    if len(ids) < FEWEST_MEANS or not np.ptp(table, axis=0).any():
        return None
    pca = PCA(n_components=2, svd_solver="full").fit(table)
    first, second = pca.explained_variance_ratio_.tolist()
    own_strata = tuple(strata[image_id] for image_id in ids)
    return ImageMap(tuple(ids), own_strata, pca.transform(table), (first, second), n_images=len(strata))


def _some(ids: Sequence[str], seed: int) -> list[str]:
    if len(ids) <= MAX_MEANS:
        return list(ids)
    drawn = np.random.default_rng(seed).permutation(len(ids))[:MAX_MEANS]
    return [ids[position] for position in sorted(drawn)]


def _read(store: Store, key: Key, ids: Sequence[str] | Mapping[str, None]) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Embeddings without the cells of the padding, (256, h, w), read a few at a time."""
    embeddings, names = store.embeddings(key), list(ids)
    for start in range(0, len(names), AT_ONCE):
        part = names[start : start + AT_ONCE]
        rows = [store.row_of(image_id) for image_id in part]
        for image_id, row, features in zip(part, rows, embeddings.read(rows), strict=True):
            yield image_id, without_padding(np.asarray(features, np.float32), store.info(row).size)
