"""What guides: the embeddings of the test images as colours, and where their means lie."""

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
"""Embeddings read at a time: about 35 MB in float32."""
STRIDE = 4
"""The colours are fitted to every fourth cell of every fourth row: 256 cells an image, which are alike around."""
MOST_MEANS = 300
"""Images whose mean embedding is computed, at most; reading an embedding takes about 10 ms."""
FEWEST_MEANS = 4
"""Below so many images their means say nothing of where images lie."""


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
    """Images that these were drawn from."""


@dataclass(frozen=True, eq=False)
class EmbeddingPanel:
    """The embeddings of one encoder, which guide some of the configurations."""

    label: str
    """The encoder's identity in one line."""
    names: tuple[str, ...]
    """Of the configurations."""
    colours: PrincipalColours
    """Fitted to all images that are shown: a colour means the same in each of them."""
    means: ImageMap | None
    """None of a handful of images."""
    store: Store
    key: Key

    def paint(self, ids: Sequence[str]) -> dict[str, NDArray[np.uint8]]:
        """The embedding of each image as colours, without padding: id -> (h, w, 3)."""
        return {
            one: np.rint(255 * self.colours.paint(features)).astype(np.uint8)
            for one, features in _read(self.store, self.key, ids)
        }


def guides(exam: TestSet, entrants: Sequence[Configuration], shown: Sequence[str], strata: Mapping[str, str], seed: int
           ) -> list[EmbeddingPanel]:  # fmt: skip
    """Find the encoders that guide, fit colours to the images that are shown, and place all images by their means.

    Args:
        exam: the images.
        entrants: the configurations.
        shown: ids of the images that are shown, at least one.
        strata: organ or cohort of every image.
        seed: of the choice of images where there are too many to read.
    """
    found: dict[tuple[str, str], tuple[Store, Key, list[str]]] = {}
    for entrant in entrants:
        if entrant.is_guided:
            store = exam.store_for(entrant.first)
            key = store.find(entrant.first.inputs.embedding)
            found.setdefault((store.location, key.hash), (store, key, []))[2].append(entrant.name)
    return [_guide(store, key, tuple(names), shown, strata, seed) for store, key, names in found.values()]


def _guide(
    store: Store, key: Key, names: tuple[str, ...], shown: Sequence[str], strata: Mapping[str, str], seed: int
) -> EmbeddingPanel:
    averaged = _some(list(strata), seed)
    means, cells = {}, {}
    for one, features in _read(store, key, dict.fromkeys((*averaged, *shown))):
        means[one] = features.mean(axis=(1, 2), dtype=np.float64)
        if one in shown:
            cells[one] = features[:, ::STRIDE, ::STRIDE].copy()
    colours = PrincipalColours.fit(list(cells.values()))
    return EmbeddingPanel(label(key.fields), names, colours, _map(averaged, means, strata), store, key)


def _map(ids: Sequence[str], means: Mapping[str, NDArray[np.float64]], strata: Mapping[str, str]) -> ImageMap | None:
    from sklearn.decomposition import PCA

    table = np.stack([means[one] for one in ids])
    if len(ids) < FEWEST_MEANS or not np.ptp(table, axis=0).any():
        return None
    pca = PCA(n_components=2, svd_solver="full").fit(table)
    first, second = pca.explained_variance_ratio_.tolist()
    return ImageMap(
        tuple(ids), tuple(strata[one] for one in ids), pca.transform(table), (first, second), n_images=len(strata)
    )


def _some(ids: Sequence[str], seed: int) -> list[str]:
    if len(ids) <= MOST_MEANS:
        return list(ids)
    drawn = np.random.default_rng(seed).permutation(len(ids))[:MOST_MEANS]
    return [ids[position] for position in sorted(drawn)]


def _read(store: Store, key: Key, ids: Sequence[str] | Mapping[str, None]) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Embeddings without the cells of the padding, (256, h, w), a few at a time."""
    embeddings, names = store.embeddings(key), list(ids)
    for start in range(0, len(names), AT_ONCE):
        part = names[start : start + AT_ONCE]
        rows = [store.row_of(one) for one in part]
        for one, row, features in zip(part, rows, embeddings.read(rows), strict=True):
            yield one, without_padding(np.asarray(features, np.float32), store.info(row).size)
