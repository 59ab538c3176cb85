"""Which split, key, embeddings and views a run uses."""

from __future__ import annotations

from collections.abc import Sequence

from nucseg.data.files import some
from nucseg.data.splits import Split, SplitRow, split
from nucseg.errors import ConfigError
from nucseg.views import view_names
from nucseg.views.crop import CROP
from nucseg.views.registry import D4_VIEWS, IDENTITY
from nucseg_cache import Embeddings, Key, Store
from nucseg_pipeline.config import TrainConfig
from nucseg_pipeline.loading.batches import spread_evenly
from nucseg_pipeline.loading.dataset import row_numbers


def find_key(store: Store, config: TrainConfig) -> Key | None:
    """The one key of the store that answers what the configuration asks for; None without guidance.

    Raises nucseg_cache.EmbeddingNotFound where none or several do, with the candidates and their differences.
    """
    if config.fusion == "none":
        return None
    from nucseg.encoders import asked_identity  # not needed, and not loaded, without guidance

    asked = asked_identity(config.encoder, weights=config.weights, precision=config.precision)
    return store.find({**asked, **({} if config.format is None else {"format": config.format})})


def open_embeddings(store: Store, key: Key | None, ids: Sequence[str]) -> Embeddings | None:
    """The embeddings of a key, complete for these ids; None without guidance. See `complete_embeddings`."""
    return None if key is None else complete_embeddings(store, key, ids)


def complete_embeddings(store: Store, key: Key, ids: Sequence[str], view: str = "identity") -> Embeddings:
    """The embeddings of a key in one view, complete for these ids; ConfigError says how many are missing."""
    embeddings = store.embeddings(key, view)
    without = set(embeddings.missing())
    asked = set(ids)
    missing = sorted(info.id for info in store.table if info.row in without and info.id in asked)
    if missing:
        raise ConfigError(
            f"{len(missing)} of {len(ids)} images in {store.location} have no embedding{_of(view)} yet: "
            f"{some(missing)}. Run `nucseg embed --dataset {store.dataset}{_option(view)}` with the same encoder; it "
            "computes only what is missing."
        )
    return embeddings


def views_option(views: str) -> str:
    """What asks `nucseg embed` for some views, in words."""
    return f"--views {views}" if views in view_names() else f"--views path/to/{views}.toml"


def _of(view: str) -> str:
    return "" if view == "identity" else f" of the view {view}"


def _option(view: str) -> str:
    return "" if view == "identity" else f" {views_option(view.rpartition('-')[0])}"


def make_split(store: Store, config: TrainConfig) -> Split:
    """The training, validation and test ids of a configuration, over the rows that are present.

    Rows go by their ids, folder by folder, which is the order of the protocols: a store that has grown is divided as
    one that was made at once.
    """
    return split(split_rows(store), dataset=store.dataset, protocol=config.split, fold=config.fold, seed=config.seed)


def split_rows(store: Store) -> list[SplitRow]:
    """What a protocol divides: the rows that are present, in the order of the protocols (see `make_split`)."""
    present = sorted((info for info in store.table if info.present), key=lambda info: info.id.split("/"))
    return [SplitRow(id=info.id, group=info.group, stratum=info.stratum) for info in present]


def used_ids(parts: Split) -> tuple[str, ...]:
    """All ids of a split."""
    return (*parts.train, *parts.validation, *parts.test)


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


MOST_EXACT_IMAGES = 32
"""Images from which the mixing of channels is learned, at most: with more it hardly changes."""


ENOUGH_EXACT_IMAGES = 16
"""Images to embed in all orientations for it, those for validation and test included."""


def needs_channel_mixing(config: TrainConfig) -> bool:
    """Whether a training learns from exact views what turns do to the channels."""
    return (
        config.replay == "learned"
        and config.views != "d4"  # which are the turned embeddings themselves
        and "none" not in (config.fusion, config.augmentation)
    )


def mixing_images(store: Store, key: Key | None, config: TrainConfig, ids: Sequence[str]) -> tuple[str, ...]:
    """Those of a run's training images whose exact views its replay is learned from; none where it learns nothing.

    Raises:
        ConfigError: it is to learn, and no image has exact views.
    """
    if key is None or not needs_channel_mixing(config):
        return ()
    rows = rows_with_all_views(store, key, ids)
    if not rows:
        raise ConfigError(
            f"replay learned is learned from exact views of training images, and there are none of these {len(ids)} in "
            f"{store.location}. Run `nucseg embed --dataset {store.dataset} --views d4 --view-images "
            f"{ENOUGH_EXACT_IMAGES}` with the same encoder, or take --replay corrected."
        )
    return tuple(store.info(row).id for row in rows)


def rows_with_all_views(store: Store, key: Key, ids: Sequence[str]) -> list[int]:
    """The rows of those ids that have all eight orientations; at most so many as are needed, spread evenly."""
    complete = set(row_numbers(store, ids))
    for view in D4_VIEWS:
        complete &= {info.row for info in store.embeddings(key, view).embedded_rows()}
    return spread_evenly(sorted(complete), MOST_EXACT_IMAGES)
