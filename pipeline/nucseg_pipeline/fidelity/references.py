"""What moved images truly embed to, what each replay makes of them, and how these agree."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nucseg.encoders import Encoder
from nucseg.encoders.base import MIN_BATCH
from nucseg.replay import Motions, Replay, d4
from nucseg.replay.fidelity import Agreement, agreement, channel_means
from nucseg_pipeline.fidelity.motions import Move
from nucseg_pipeline.fidelity.native_images import Image, cells_inside, moved_native

UNMOVED, PLAIN, CORRECTED, LEARNED, VIEWS = REPLAYS = ("unmoved", "plain", "corrected", "learned", "views")
"""How an embedding can follow its image, from the cheapest to the dearest."""

Told = Callable[[int, float], None]
"""Called with the number of images that were encoded, and the seconds they took."""


@dataclass(frozen=True, eq=False)
class ReplayParameters:
    """What replay knows from the training images."""

    pattern: Tensor
    """(C, G, G) of `nucseg.replay.position_pattern`."""
    mixing: Tensor | None
    """(8, C, C) of `nucseg.replay.fit_mixing`; None where no image was to calibrate it."""

    @property
    def replays(self) -> tuple[str, ...]:
        """What can be compared."""
        return tuple(name for name in REPLAYS if name != LEARNED or self.mixing is not None)

    def replayed(self, replay: str, embedding: Tensor, view: Tensor, motions: Motions) -> Tensor:
        """The embedding (C, G, G) as it follows the one motion; `view` is the exact one of the motion's element."""
        if replay == UNMOVED:
            return embedding.float()
        if replay == VIEWS:
            return Replay(self.pattern)(view[None], motions, views=True)[0]
        made = {PLAIN: Replay(), CORRECTED: Replay(self.pattern), LEARNED: Replay(self.pattern, self.mixing)}
        return made[replay](embedding[None], motions)[0]


@dataclass(frozen=True, eq=False)
class Seen:
    """One image under one move: the motion, the true embedding, and what each replay makes of it."""

    move: Move
    motions: Motions
    true: Tensor
    """(C, G, G) float32."""
    replayed: Mapping[str, Tensor]
    """Replay -> (C, G, G) float32."""

    def agreements(self, size: tuple[int, int], learned: ReplayParameters) -> dict[str, Agreement]:
        """Replay -> how it agrees with the true embedding, over the cells of an image of native (H, W)."""
        means, inside = channel_means(learned.pattern), cells_inside(size, self.motions, self.true.shape[-1])
        return {name: agreement(self.true, one, means, inside) for name, one in self.replayed.items()}


@dataclass(frozen=True, eq=False)
class ImageEmbeddings:
    """One image, and what is known of it without encoding anything."""

    native: Image
    exact: Mapping[int, Tensor]
    """Element of D4 -> true embedding (C, G, G), of those that are in the store; the identity always is."""

    def missing(self, elements: Iterable[int]) -> list[int]:
        """The elements of which the embedding must be computed, each once."""
        return sorted(set(elements) - set(self.exact))


def n_to_encode(drawn: Sequence[tuple[Move, Motions]], known: Set[int]) -> int:
    """How many images `look` encodes where the embeddings of some elements are known."""
    needed = {element for _, motions in drawn for element in motions.elements} - known
    return len(needed) + sum(bool(motions.mapped) for _, motions in drawn)


def look(
    subject: ImageEmbeddings,
    drawn: Sequence[tuple[Move, Motions]],
    encoder: Encoder,
    learned: ReplayParameters,
    told: Told,
) -> Iterator[Seen]:
    """See an image under every move: its true embedding, and its cached one as each replay moves it.

    An exact view that a move begins with is encoded once, whether or not it is a move of its own.
    """
    elements = subject.missing(element for _, motions in drawn for element in motions.elements)
    bent = [number for number, (_, motions) in enumerate(drawn) if motions.mapped]
    shown = [Motions.of_elements([element]) for element in elements] + [drawn[number][1] for number in bent]
    embeddings = [torch.from_numpy(one) for one in encoded(encoder, subject.native, shown, told)]
    exact = {**subject.exact, **dict(zip(elements, embeddings, strict=False))}
    of_bent = dict(zip(bent, embeddings[len(elements) :], strict=True))
    for number, (move, motions) in enumerate(drawn):
        view = exact[motions.elements[0]]
        replayed = {name: learned.replayed(name, exact[0], view, motions) for name in learned.replays}
        yield Seen(move, motions, of_bent.get(number, view), replayed)


def orbit(subject: ImageEmbeddings, encoder: Encoder, told: Told) -> Tensor:
    """The true embeddings of all orientations of an image, (8, C, G, G), in the order of `d4.ELEMENTS`."""
    elements = subject.missing(d4.ELEMENTS)
    shown = [Motions.of_elements([element]) for element in elements]
    computed = map(torch.from_numpy, encoded(encoder, subject.native, shown, told))
    exact = {**subject.exact, **dict(zip(elements, computed, strict=True))}
    return torch.stack([exact[element].float() for element in d4.ELEMENTS])


def encoded(encoder: Encoder, image: Image, shown: Sequence[Motions], told: Told) -> Iterator[NDArray[np.float32]]:
    """Encode an image under each of the motions, batch by batch."""
    size = max(encoder.batch_size, MIN_BATCH)
    for first in range(0, len(shown), size):
        batch = [moved_native(image, motions) for motions in shown[first : first + size]]
        started = time.perf_counter()
        embeddings = encoder.encode(batch)
        told(len(batch), time.perf_counter() - started)
        yield from embeddings
