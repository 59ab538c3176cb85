"""What a training shows of its rows: which view of each is read, how it moves, and how its embedding follows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import xxhash
from torch import Tensor

from nucseg.data.files import some
from nucseg.errors import ConfigError
from nucseg.replay import Geometry, Motions, Replay
from nucseg.replay.geometry import NONE
from nucseg.views import views_named
from nucseg.views.crop import CROP
from nucseg_cache import Embeddings, Key, Store
from nucseg_pipeline.batch import Batch, Row
from nucseg_pipeline.config import TrainConfig
from nucseg_pipeline.inputs import complete_embeddings, views_option
from nucseg_pipeline.rows import IDENTITY, Rows

D4_VIEWS = tuple(view.name for view in views_named("d4"))
"""The exact views of the other seven orientations, in the order of `nucseg.replay.d4.ELEMENTS`."""


@dataclass(frozen=True)
class Augmentation:
    """What is drawn for each sample and epoch, from the seed, the epoch and the id alone."""

    geometry: Geometry
    replay: Replay | None
    """How embeddings follow their images; None leaves them as they are, which is wrong and there for comparison."""
    views: tuple[str, ...] = ()
    """The views that the rows were opened with beside the identity: the seven of D4, photometric variants, or none."""

    @property
    def is_exact(self) -> bool:
        """Whether the orientations are read, not replayed."""
        return self.views == D4_VIEWS

    def shown(self, rows: Rows, indices: Sequence[int], *, seed: int, epoch: int) -> tuple[list[Row], Motions]:
        """Read rows in the views of this epoch, and draw how they move."""
        ids = [rows.ids[index] for index in indices]
        motions = self.geometry.motions(seed, epoch, ids, side=rows.side_px)
        if self.is_exact:
            views = [(IDENTITY, *D4_VIEWS)[element] for element in motions.elements]
        else:
            choices = (IDENTITY, *self.views)
            views = [choices[_draw(seed, epoch, one) % len(choices)] for one in ids]
        return rows.read(indices, views), motions

    def moved(self, batch: Batch, motions: Motions) -> Batch:
        """Move everything of a batch, on its device; what came from outside an image is ignored."""
        if self.geometry.text == NONE:
            return batch
        motions = motions.to(batch.image.device)
        return replace(
            batch,
            image=motions.moved(batch.image),
            target=_moved_mask(motions, batch.target, outside=0),
            ignore=_moved_mask(motions, batch.ignore, outside=1),
            distance=None if batch.distance is None else motions.moved(batch.distance[:, None])[:, 0],
            embedding=self._replayed(batch.embedding, motions),
        )

    def _replayed(self, embedding: Tensor | None, motions: Motions) -> Tensor | None:
        if embedding is None or self.replay is None:
            return embedding
        return self.replay(embedding, motions, views=self.is_exact)


def open_views(
    store: Store, key: Key | None, config: TrainConfig, ids: Sequence[str], names: Sequence[str] = ()
) -> dict[str, Embeddings]:
    """The views that a training reads beside the identity, complete for its ids.

    Args:
        store: where they are.
        key: of the embeddings; None without guidance, which reads none.
        config: what is trained.
        ids: the images that are shown.
        names: the very views that a run was started with; by default all that there are.

    Raises:
        ConfigError: there are no such views, some are missing between others, they are not there for all ids, or they
            show parts of the images alone.
    """
    if config.views == IDENTITY or key is None:
        return {}
    there = store.views(key)
    wanted = tuple(names) or (D4_VIEWS if config.views == "d4" else _variants(there, config.views))
    missing = [name for name in wanted if name not in there]
    if missing or not wanted:
        lacking = f", without {', '.join(missing)}" if missing else ""
        raise ConfigError(
            f"{store.location} has these embeddings in the views {', '.join(sorted(there))}{lacking}, and the training "
            f"asks for {config.views}. Run `nucseg embed --dataset {store.dataset} {views_option(config.views)}` with "
            "the same encoder."
        )
    views = {name: store.embeddings(key, name) for name in wanted}
    cropped = [name for name, view in views.items() if CROP in view.described]
    if cropped:
        raise ConfigError(
            f"The views {some(cropped)} in {store.location} show parts of the images, and the masks are of the whole: "
            "no network can be trained on them, only an encoder distilled (`nucseg distill`). Take other --views."
        )
    return {name: complete_embeddings(store, key, ids, name) for name in views}


def _variants(there: Sequence[str], recipe: str) -> tuple[str, ...]:
    """The names of all variants of a recipe up to the last that there is, also of those in between that are missing."""
    last = max((_number(one) for one in there if _is_variant(one, recipe)), default=0)
    return tuple(f"{recipe}-{number}" for number in range(1, last + 1))


def _is_variant(view: str, recipe: str) -> bool:
    name, _, number = view.rpartition("-")
    return name == recipe and number.isdecimal()


def _number(view: str) -> int:
    return int(view.rpartition("-")[2])


def _draw(seed: int, epoch: int, sample_id: str) -> int:
    return xxhash.xxh3_64_intdigest(f"view/{seed}/{epoch}/{sample_id}".encode())


def _moved_mask(motions: Motions, mask: Tensor, *, outside: int) -> Tensor:
    return motions.moved(mask[:, None], nearest=True, outside=outside)[:, 0]
