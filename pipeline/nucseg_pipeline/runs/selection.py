"""What a training reads of a store: which split, key, embeddings and views."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from nucseg.data.files import some
from nucseg.data.splits import Split, SplitRow, split
from nucseg.errors import ConfigError, suggestion
from nucseg.views import view_names
from nucseg.views.registry import D4_VIEWS, IDENTITY
from nucseg_cache import Embeddings, Key, Store
from nucseg_pipeline.config import EmbedConfig, TrainConfig
from nucseg_pipeline.config.commands import command
from nucseg_pipeline.datasets.stores import open_store
from nucseg_pipeline.loading.batches import spread_evenly
from nucseg_pipeline.loading.dataset import row_numbers

MAX_EXACT_IMAGES = 32
"""Images from which the mixing of channels is learned, at most: with more it hardly changes."""

ENOUGH_EXACT_IMAGES = 16
"""Images to embed in all orientations for it, those for validation and test included."""


@dataclass(frozen=True, eq=False)
class Selection:
    """What a configuration selects of a store; opened by train, distill, fidelity and ablate alike."""

    config: TrainConfig
    store: Store
    key: Key | None
    """Of the embeddings; None without guidance."""
    recorded_split: Split | None = None
    """Of the run that is resumed; None makes it from the store."""

    @classmethod
    def open(cls, config: TrainConfig, recorded_split: Split | None = None) -> Selection:
        """Open the store and find the key of the embeddings.

        Raises:
            ConfigError: the store is of another data set.
            nucseg_cache.CacheError: there is no such store, or none or several of its keys are asked for.
        """
        store = open_store(config.cache, config.dataset, command=command(embedding_of(config), always=("encoder",)))
        return cls(config, store, find_key(store, config), recorded_split)

    @cached_property
    def split(self) -> Split:
        """The ids of training, validation and test part."""
        return make_split(self.store, self.config) if self.recorded_split is None else self.recorded_split

    @property
    def present_ids(self) -> tuple[str, ...]:
        """All images of the store that have not vanished from the data set."""
        return tuple(info.id for info in self.store.table if info.present)

    def embeddings(self, ids: Sequence[str]) -> Embeddings | None:
        """The embeddings of the images as they are; see `open_embeddings`."""
        return open_embeddings(self.store, self.key, ids, self.config)

    def views(self, ids: Sequence[str], names: Sequence[str] = ()) -> dict[str, Embeddings]:
        """The views that a training reads besides the identity, complete for its ids; none without guidance.

        Args:
            ids: the training images.
            names: the views that a resumed run was started with; by default all that the configuration asks for.

        Raises:
            ConfigError: there are no such views, some are missing between others, or they are missing for some ids.
        """
        store, key, asked = self.store, self.key, self.config.views
        if asked == IDENTITY or key is None:
            return {}
        available = store.views(key)
        wanted = tuple(names) or (D4_VIEWS if asked == "d4" else _variants(available, asked))
        missing = [name for name in wanted if name not in available]
        if missing or not wanted:
            lacking = f", without {', '.join(missing)}" if missing else ""
            guess = "" if asked in view_names() else f" {suggestion(asked, view_names())}".rstrip()
            raise ConfigError(
                f"{store.location} has these embeddings in the views {', '.join(sorted(available))}{lacking}, and the "
                f"training asks for {asked}.{guess} Run `{embed_command(store, key, self.config, views=asked)}`."
            )
        return {name: complete_embeddings(store, key, ids, self.config, name) for name in wanted}

    def mixing_images(self, ids: Sequence[str]) -> tuple[str, ...]:
        """Those of the training images from whose exact views the mixing of channels is learned, if it is learned.

        Raises:
            ConfigError: it is to be learned, and no image has exact views.
        """
        store, key = self.store, self.key
        if key is None or not needs_channel_mixing(self.config):
            return ()
        rows = rows_with_all_views(store, key, ids)
        if not rows:
            embed = embed_command(store, key, self.config, views="d4", view_images=ENOUGH_EXACT_IMAGES)
            raise ConfigError(
                f"replay learned needs exact views of training images, and none of these {len(ids)} in "
                f"{store.location} has them. Run `{embed}`, or take --replay corrected."
            )
        return tuple(store.info(row).id for row in rows)


def find_key(store: Store, config: TrainConfig) -> Key | None:
    """The one key of the store that answers what the configuration asks for; None without guidance.

    Raises nucseg_cache.EmbeddingNotFound where none or several do, with the candidates and their differences.
    """
    if config.fusion == "none":
        return None
    from nucseg.encoders import asked_identity  # not needed, and not loaded, without guidance

    asked = asked_identity(config.encoder, weights=config.weights, precision=config.precision)
    asked |= {} if config.format is None else {"format": config.format}
    return store.find(asked, command=embed_command(store, None, config))


def open_embeddings(store: Store, key: Key | None, ids: Sequence[str], training: TrainConfig) -> Embeddings | None:
    """The embeddings of a key, complete for these ids; None without guidance. See `complete_embeddings`."""
    return None if key is None else complete_embeddings(store, key, ids, training)


def complete_embeddings(
    store: Store, key: Key, ids: Sequence[str], training: TrainConfig, view: str = IDENTITY
) -> Embeddings:
    """The embeddings of a key in one view, complete for these ids; ConfigError says how many are missing."""
    embeddings = store.embeddings(key, view)
    without = set(embeddings.missing())
    asked = set(ids)
    missing = sorted(info.id for info in store.table if info.row in without and info.id in asked)
    if missing:
        of_view = "" if view == IDENTITY else f" of the view {view}"
        embed = embed_command(store, key, training, views=IDENTITY if view == IDENTITY else view.rpartition("-")[0])
        raise ConfigError(
            f"{len(missing)} of {len(ids)} images in {store.location} have no embedding{of_view} yet: "
            f"{some(missing)}. Run `{embed}`: it computes only what is missing."
        )
    return embeddings


def embedding_of(training: TrainConfig) -> EmbedConfig:
    """What makes the embeddings that a training reads, without its views."""
    is_guided = training.fusion != "none"
    return EmbedConfig(
        dataset=training.dataset,
        encoder=training.encoder if is_guided else "none",
        weights=training.weights if is_guided else None,
        precision=training.precision,
        format=training.format or EmbedConfig.format,
        cache=training.cache,
        device=training.device,
        threads=training.threads,
    )


def embed_command(
    store: Store, key: Key | None, training: TrainConfig, *, views: str = IDENTITY, view_images: int | None = None
) -> str:
    """The command that embeds what a training lacks in a store, with the encoder of its embeddings.

    Args:
        store: the store, which may have been moved since the training.
        key: of the embeddings; None if there are none yet.
        training: names the encoder and its file.
        views: the views to embed; a view recipe that is not of the package is a file whose place is not known.
        view_images: number of images to embed them of.
    """
    made = key.fields if key else {}
    cache = store.location.rpartition("/")[0] or "."
    views = views if views in view_names() else f"path/to/{views}.toml"
    embedding = embedding_of(training)
    embedding = replace(
        embedding, dataset=store.dataset, stain=None, cache=cache, views=views, view_images=view_images,
        precision=made.get("precision", embedding.precision), format=made.get("format", embedding.format),
    )  # fmt: skip
    return command(embedding, always=("encoder",))


def make_split(store: Store, config: TrainConfig) -> Split:
    """The training, validation and test ids of a configuration, over the rows that are present.

    Rows are sorted by their ids, folder by folder, which is the order of the protocols: a store that was extended is
    divided like one that was filled at once.
    """
    return split(split_rows(store), dataset=store.dataset, protocol=config.split, fold=config.fold, seed=config.seed)


def split_rows(store: Store) -> list[SplitRow]:
    """What a protocol divides: the rows that are present, in the order of the protocols (see `make_split`)."""
    present = sorted((info for info in store.table if info.present), key=lambda info: info.id.split("/"))
    return [SplitRow(id=info.id, group=info.group, stratum=info.stratum) for info in present]


def used_ids(parts: Split) -> tuple[str, ...]:
    """All ids of a split."""
    return (*parts.train, *parts.validation, *parts.test)


def needs_channel_mixing(config: TrainConfig) -> bool:
    """Whether a training learns from exact views what turns do to the channels."""
    return (
        config.replay == "learned"
        and config.views != "d4"  # which are the turned embeddings themselves
        and "none" not in (config.fusion, config.augmentation)
    )


def rows_with_all_views(store: Store, key: Key, ids: Sequence[str]) -> list[int]:
    """The rows of those ids that have all eight orientations; if they are many, as many as are needed."""
    complete = set(row_numbers(store, ids))
    for view in D4_VIEWS:
        complete &= {info.row for info in store.embeddings(key, view).embedded_rows()}
    return spread_evenly(sorted(complete), MAX_EXACT_IMAGES)


def _variants(available: Sequence[str], recipe: str) -> tuple[str, ...]:
    """The names of all variants of a recipe up to the last that is available, including missing ones in between."""
    prefixes = (name.rpartition("-") for name in available)
    last = max((int(number) for name, _, number in prefixes if name == recipe and number.isdecimal()), default=0)
    return tuple(f"{recipe}-{number}" for number in range(1, last + 1))
