"""What a worker does: it opens encoder, store and data set once, and encodes one block after another.

A worker is a process of a Dask cluster. What goes to it and what comes back is small: the rows of a block, and counts.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from nucseg.data import Entry
from nucseg.data.files import some
from nucseg.encoders import Encoder, named_file, open_encoder
from nucseg.errors import DataError, EncoderError, NucsegError
from nucseg.paths import home_expanded
from nucseg.views import View
from nucseg_cache import CacheError, EmbeddingNotFound, Key, Store
from nucseg_pipeline.config import EmbedConfig
from nucseg_pipeline.datasets.locate import open_source
from nucseg_pipeline.embed.encode import Encoding
from nucseg_pipeline.embed.view_target import Target

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class Work:
    """What all tasks of one run have in common."""

    run: str
    """Unlike that of any other run: what a worker keeps open is kept for one run."""
    config: EmbedConfig
    """Every path in it absolute."""
    location: str
    """Of the store."""

    @classmethod
    def of(cls, run: str, config: EmbedConfig, location: str, source: str) -> Work:
        """The work of a configuration, whose places do not depend on where a worker was started."""
        name, file = config.encoder.partition(":")[0], named_file(config.encoder)
        return cls(
            run,
            replace(
                config,
                source=Path(source) if source else None,
                encoder=f"{name}:{_absolute(file)}" if file else config.encoder,
                weights=config.weights and Path(_absolute(config.weights)),
            ),
            location if "://" in location else _absolute(location),
        )

    def with_threads(self, threads: int) -> Work:
        """The same with so many threads a worker."""
        return replace(self, config=replace(self.config, threads=threads))


@dataclass(frozen=True)
class Part:
    """The rows of one view in a block that are to have an embedding."""

    view: View | None
    """None for the images as they are."""
    rows: frozenset[int]


@dataclass(frozen=True)
class Block:
    """What one task owns."""

    rows: range
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Opened:
    """What an encoder is, as a worker has opened it."""

    identity: Mapping[str, str]
    provenance: Mapping[str, str]
    note: str


@dataclass(frozen=True)
class Done:
    """What one task did."""

    n_encoded: Mapping[str, int]
    """Embeddings made, by the name of the view."""
    failures: Mapping[str, str]
    """Id -> why its image could not be used."""


@dataclass(frozen=True)
class Failed:
    """An error that the user can act on. As an exception it might not survive the way back: constructors differ."""

    kind: type[NucsegError] | type[CacheError]
    message: str

    def error(self) -> NucsegError | CacheError:
        """The exception that it was."""
        error = self.kind.__new__(self.kind)
        error.args = (self.message,)
        return error


class _Tools:
    """What a worker keeps open between the tasks of one run."""

    def __init__(self, work: Work) -> None:
        config = work.config
        self.work = work
        self.store = Store.open(work.location, mode="r+")
        entries = open_source(config.dataset, config.source).entries[: config.limit]
        self.wanted: dict[int, Entry] = {self.store.row_of(e.id): e for e in entries if self.store.has(e.id)}
        self.encoder: Encoder = open_encoder(
            config.encoder, weights=config.weights, device=config.device, precision=config.precision,
            threads=config.threads, batch_size=config.batch_size,
        )  # fmt: skip


_one_at_a_time = threading.Lock()
_open: list[_Tools] = []


def _with_tools(do: Callable[Concatenate[_Tools, P], R], work: Work, *args: P.args, **kwargs: P.kwargs) -> R | Failed:
    """Call with the tools of a run, those of another put away; by one thread at a time, since they are shared."""
    with _one_at_a_time:
        try:
            if not _open or _open[0].work.run != work.run:
                _open.clear()
                _open.append(_Tools(work))
            return do(_open[0], *args, **kwargs)
        except (NucsegError, CacheError) as error:
            return Failed(type(error), str(error))


def open_tools(work: Work) -> Opened | Failed:
    """Open everything, and say what the encoder is."""
    return _with_tools(
        lambda tools: Opened(dict(tools.encoder.identity), dict(tools.encoder.provenance), tools.encoder.note), work
    )


def encode_block(work: Work, key: Key, block: Block, told: Callable[[Block, int, str], None]) -> Done | Failed:
    """Encode what is missing in a block now: a block that another worker was lost with is done again from there.

    Args:
        work: the run that the block is of.
        key: of the embeddings, whose arrays are there and have room.
        block: the rows, and which of them are wanted in which view.
        told: called with the block, how many of its embeddings there are by now, and what is being done.
    """
    return _with_tools(_encode_block, work, key, block, told)


def _encode_block(tools: _Tools, key: Key, block: Block, told: Callable[[Block, int, str], None]) -> Done:
    refuse_another_encoder(key.fields, tools.encoder.identity, socket.gethostname())
    targets = [_target(tools.store, key, part) for part in block.parts]
    missing = [target.missing(block.rows) for target in targets]
    _refuse_other_images(tools, {row for rows in missing for row in rows})
    planned = sum(len(part.rows) for part in block.parts)
    before = planned - sum(map(len, missing))
    failures: dict[str, str] = {}
    encoding = Encoding(
        tools.encoder, tools.store, tools.wanted, failures, planned - before,
        lambda done, total, what: told(block, before + done, what), lambda duration: None,
    )  # fmt: skip
    encoding.run(targets, missing)
    return Done(dict(encoding.n_encoded), failures)


def _target(store: Store, key: Key, part: Part) -> Target:
    view = part.view
    if view is None:
        embeddings = store.embeddings(key)
    else:
        embeddings = store.embeddings(key, view.name, described=view.described, images=view.has_own_image)
    if embeddings.view not in store.views(key):
        raise EmbeddingNotFound(
            f"{store.location} has no embeddings {key.hash}/{embeddings.view} here, where a worker runs, and they were "
            "begun by the process that sent the work: this is another folder of the same name. Name a folder that all "
            "machines share, or a URL, with --cache."
        )
    return Target(embeddings, part.rows, view)


def _refuse_other_images(tools: _Tools, rows: set[int]) -> None:
    ids = [tools.store.info(row).id for row in sorted(rows - set(tools.wanted))]
    if ids:
        raise DataError(
            f"{len(ids)} images that are to be embedded are not in {tools.work.config.source} here, where a worker "
            f"runs: {some(ids)}. Give every machine the same source folder under the same path."
        )


def refuse_another_encoder(expected: Mapping[str, str], identity: Mapping[str, str], worker: str) -> None:
    """Raise EncoderError where a worker's encoder is not the one that the embeddings are to be of."""
    lines = [
        f"{name}: expected {value}, on {worker} {identity[name]}"
        for name, value in expected.items()
        if identity.get(name, value) != value
    ]
    if lines:
        raise EncoderError(
            "a worker has another encoder:\n  "
            + "\n  ".join(lines)
            + "\nGive every machine the same weights file, and "
            "say --precision where some have a GPU and some have none."
        )


def _absolute(path: str | Path) -> str:
    return str(home_expanded(path).absolute())
