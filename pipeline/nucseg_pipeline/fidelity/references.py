"""True embeddings of changed images, those that are used in their place, and how they agree."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from nucseg.encoders import Encoder
from nucseg.encoders.base import MIN_BATCH
from nucseg.photometric.transforms import Change
from nucseg.replay import Motions, Replay, d4
from nucseg.replay.fidelity import Agreement, agreement, channel_means
from nucseg_pipeline.fidelity.motions import MotionSpec
from nucseg_pipeline.fidelity.native_images import Image, cells_inside, moved_native

UNMOVED, PLAIN, CORRECTED, LEARNED, VIEWS = REPLAYS = ("unmoved", "plain", "corrected", "learned", "views")
"""Ways to move an embedding with its image, from the cheapest to the most expensive."""

CACHED, SHIFTED = COLOUR_COLUMNS = ("cached", "cached, shifted")
"""Embeddings compared with that of an image in other colours: the cached one, and the cached one plus a vector per
image, the mean over cells of its difference to the true one."""

OnEncoded = Callable[[int, float], None]
"""Called after each batch with the number of encoded images and the seconds they took."""


@dataclass(frozen=True, eq=False)
class ReplayParameters:
    """What replay learns from the training images."""

    pattern: Tensor
    """(C, G, G), see `nucseg.replay.position_pattern`."""
    mixing: Tensor | None
    """(8, C, C), see `nucseg.replay.fit_mixing`; None without calibration images."""

    @property
    def replays(self) -> tuple[str, ...]:
        """The replays that can be compared."""
        return tuple(name for name in REPLAYS if name != LEARNED or self.mixing is not None)

    def replayed(self, replay: str, embedding: Tensor, view: Tensor, motions: Motions) -> Tensor:
        """Apply one motion to an embedding (C, G, G); `view` is the exact view of the motion's D4 element."""
        if replay == UNMOVED:
            return embedding.float()
        if replay == VIEWS:
            return Replay(self.pattern)(view[None], motions, views=True)[0]
        replays = {PLAIN: Replay(), CORRECTED: Replay(self.pattern), LEARNED: Replay(self.pattern, self.mixing)}
        return replays[replay](embedding[None], motions)[0]


@dataclass(frozen=True, eq=False)
class MotionResult:
    """One image under one motion: the true embedding, and what each replay computes, (C, G, G) float32."""

    spec: MotionSpec
    motions: Motions
    true: Tensor
    replayed: Mapping[str, Tensor]

    def agreements(self, size: tuple[int, int], parameters: ReplayParameters) -> dict[str, Agreement]:
        """Replay -> agreement with the true embedding over the cells inside an image of native (H, W)."""
        means, inside = channel_means(parameters.pattern), cells_inside(size, self.motions, self.true.shape[-1])
        return {name: agreement(self.true, embedding, means, inside) for name, embedding in self.replayed.items()}


@dataclass(frozen=True, eq=False)
class ColourResult:
    """One image in other colours, its true embedding (C, G, G), and how the cached one agrees with it."""

    name: str
    changed: Image
    true: Tensor
    agreements: Mapping[str, Agreement]
    """`CACHED` or `SHIFTED` -> agreement over the cells inside the image."""


@dataclass(frozen=True, eq=False)
class ImageEmbeddings:
    """A native image and its embeddings in the store."""

    native: Image
    exact: Mapping[int, Tensor]
    """Element of D4 -> true embedding (C, G, G), as far as the store has it; the identity is always included."""

    def missing(self, elements: Iterable[int]) -> list[int]:
        """The elements whose embedding must be computed, each once."""
        return sorted(set(elements) - set(self.exact))


def count_encodings(drawn: Sequence[tuple[MotionSpec, Motions]], known: Set[int]) -> int:
    """How many images `evaluate_motions` encodes if the embeddings of some elements are known."""
    needed = {element for _, motions in drawn for element in motions.elements} - known
    return len(needed) + sum(bool(motions.mapped) for _, motions in drawn)


def evaluate_motions(
    image: ImageEmbeddings,
    drawn: Sequence[tuple[MotionSpec, Motions]],
    encoder: Encoder,
    parameters: ReplayParameters,
    on_encoded: OnEncoded,
) -> Iterator[MotionResult]:
    """Compare true and replayed embeddings of an image under each motion.

    The exact view that a motion begins with is encoded once, even if several motions begin with it.
    """
    elements = image.missing(element for _, motions in drawn for element in motions.elements)
    mapped = [number for number, (_, motions) in enumerate(drawn) if motions.mapped]
    to_encode = [Motions.of_elements([element]) for element in elements] + [drawn[number][1] for number in mapped]
    moved = (moved_native(image.native, motions) for motions in to_encode)
    embeddings = [embedding for _, embedding in encode_each(encoder, moved, on_encoded)]
    exact = {**image.exact, **dict(zip(elements, embeddings, strict=False))}
    of_mapped = dict(zip(mapped, embeddings[len(elements) :], strict=True))
    for number, (spec, motions) in enumerate(drawn):
        view = exact[motions.elements[0]]
        replayed = {name: parameters.replayed(name, exact[0], view, motions) for name in parameters.replays}
        yield MotionResult(spec, motions, of_mapped.get(number, view), replayed)


def evaluate_colours(
    image: ImageEmbeddings,
    changes: Mapping[str, Change],
    encoder: Encoder,
    means: Tensor,
    on_encoded: OnEncoded,
) -> Iterator[ColourResult]:
    """Compare the cached embedding of an image with those of the image in other colours.

    Args:
        image: the native image and its embeddings.
        changes: name -> change of colour.
        encoder: the encoder of the cached embedding.
        means: (C,), of the channels over training embeddings.
        on_encoded: called after each batch.
    """
    size, cached = image.native.shape[:2], image.exact[0].float()
    inside = cells_inside(size, Motions.of_elements([0]), cached.shape[-1])
    changed = (change(image.native) for change in changes.values())
    for name, (other, true) in zip(changes, encode_each(encoder, changed, on_encoded), strict=True):
        shift = (true - cached)[:, inside].mean(dim=1)
        compared = {CACHED: cached, SHIFTED: cached + shift[:, None, None]}
        agreements = {column: agreement(true, embedding, means, inside) for column, embedding in compared.items()}
        yield ColourResult(name, other, true, agreements)


def orientations(image: ImageEmbeddings, encoder: Encoder, on_encoded: OnEncoded) -> Tensor:
    """The true embeddings of the eight orientations of an image, (8, C, G, G), in the order of `d4.ELEMENTS`."""
    elements = image.missing(d4.ELEMENTS)
    moved = (moved_native(image.native, Motions.of_elements([element])) for element in elements)
    encoded = (embedding for _, embedding in encode_each(encoder, moved, on_encoded))
    exact = {**image.exact, **dict(zip(elements, encoded, strict=True))}
    return torch.stack([exact[element].float() for element in d4.ELEMENTS])


def encode_each(encoder: Encoder, images: Iterable[Image], on_encoded: OnEncoded) -> Iterator[tuple[Image, Tensor]]:
    """Encode images (H, W, 3) in batches, so that one batch is in memory; yields each with its embedding (C, G, G)."""
    remaining = iter(images)
    while batch := list(islice(remaining, max(encoder.batch_size, MIN_BATCH))):
        started = time.perf_counter()
        embeddings = encoder.encode(batch)
        on_encoded(len(batch), time.perf_counter() - started)
        yield from zip(batch, map(torch.from_numpy, embeddings), strict=True)
