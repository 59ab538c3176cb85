"""The worker's side: open encoder, store and data set once, then encode one block of rows after another.

A worker is a process of a Dask cluster. Little is sent to it and back: the rows of a block, and counts.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from nucseg.data import Entry
from nucseg.data.conversion import conversion_of
from nucseg.data.files import some
from nucseg.encoders import Encoder, named_file, open_encoder
from nucseg.errors import DataError, EncoderError
from nucseg.paths import home_expanded
from nucseg.views import View
from nucseg_cache import EmbeddingNotFound, Key, RowDamaged, Store, StoreDamaged
from nucseg_pipeline.config import EmbedConfig
from nucseg_pipeline.datasets.locate import open_source
from nucseg_pipeline.embed.encode import EncodingRun
from nucseg_pipeline.embed.view_target import ViewTarget

OnBlockProgress = Callable[[int, str], None]
"""Called with the number of embeddings that the block has now, and what is being done."""


@dataclass(frozen=True)
class EncodeJob:
    """What all tasks of one run have in common."""

    run: str
    """Different for every run; a worker keeps its store and encoder open for one run."""
    config: EmbedConfig
    """With absolute paths only."""
    location: str
    """Of the store."""

    @classmethod
    def of(cls, run: str, config: EmbedConfig, location: str, source: str) -> EncodeJob:
        """The job of a configuration, its paths made absolute: workers may run in another folder."""
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

    def with_threads(self, threads: int) -> EncodeJob:
        """The same job with another number of threads per worker."""
        return replace(self, config=replace(self.config, threads=threads))


@dataclass(frozen=True)
class ViewRows:
    """The rows of a block that need an embedding in one view."""

    view: View | None
    """None for the unchanged images."""
    rows: frozenset[int]


@dataclass(frozen=True)
class RowBlock:
    """The rows that one task owns."""

    rows: range
    views: tuple[ViewRows, ...]

    @property
    def n_embeddings(self) -> int:
        """Embeddings that the block has when it is finished, of those that were missing at first."""
        return sum(len(part.rows) for part in self.views)


@dataclass(frozen=True)
class WorkerEncoder:
    """What a worker's encoder is."""

    identity: Mapping[str, str]
    provenance: Mapping[str, str]
    note: str


BlockResult = tuple[dict[str, int], dict[str, str]]
"""Name of a view -> embeddings made; id -> why its image could not be used."""


class _WorkerState:
    """What a worker keeps open between the tasks of one run."""

    def __init__(self, job: EncodeJob) -> None:
        config = job.config
        self.job = job
        self.store = Store.open(job.location, mode="r+")
        convert = conversion_of(self.store.preparation)
        entries = open_source(config.dataset, config.source, convert=convert).entries[: config.limit]
        self.wanted: dict[int, Entry] = {self.store.row_of(e.id): e for e in entries if self.store.has(e.id)}
        self.encoder: Encoder = open_encoder(
            config.encoder, weights=config.weights, device=config.device, precision=config.precision,
            threads=config.threads, batch_size=config.batch_size,
        )  # fmt: skip


_state_lock = threading.Lock()
_states: list[_WorkerState] = []
"""The state of the run that this worker served last; empty before the first."""


@contextmanager
def _worker_state(job: EncodeJob) -> Iterator[_WorkerState]:
    """The state of a run, opened if it is another run's; one thread at a time may use it."""
    with _state_lock:
        if not _states or _states[0].job.run != job.run:
            _states.clear()
            _states.append(_WorkerState(job))
        try:
            yield _states[0]
        except RowDamaged as error:  # cannot be unpickled: its constructor takes more than the message
            raise StoreDamaged(str(error)) from None


def open_worker(job: EncodeJob) -> WorkerEncoder:
    """Open store, data set and encoder, and return what the encoder is."""
    with _worker_state(job) as state:
        return WorkerEncoder(dict(state.encoder.identity), dict(state.encoder.provenance), state.encoder.note)


def encode_block(job: EncodeJob, key: Key, block: RowBlock, on_progress: OnBlockProgress) -> BlockResult:
    """Encode what is missing in a block now; a block whose worker was lost is continued, not repeated.

    Args:
        job: the run that the block belongs to.
        key: of the embeddings; their arrays exist and have room.
        block: the rows, and in which views they need embeddings.
        on_progress: called after each batch.
    """
    with _worker_state(job) as state:
        check_same_encoder(key.fields, state.encoder.identity, socket.gethostname())
        targets = [_target(state.store, key, part) for part in block.views]
        missing = [target.missing(block.rows) for target in targets]
        _check_source(state, {row for rows in missing for row in rows})
        n_missing = sum(map(len, missing))
        n_before = block.n_embeddings - n_missing
        failures: dict[str, str] = {}
        run = EncodingRun(
            state.encoder, state.store, state.wanted, failures, n_missing,
            lambda done, total, what: on_progress(n_before + done, what),
        )  # fmt: skip
        run.run(targets, missing)
        return dict(run.n_encoded), failures


def _target(store: Store, key: Key, part: ViewRows) -> ViewTarget:
    view = part.view
    if view is None:
        embeddings = store.embeddings(key)
    else:
        embeddings = store.embeddings(key, view.name, described=view.described, images=view.has_own_image)
    if embeddings.view not in store.views(key):
        raise EmbeddingNotFound(
            f"{store.location} on {socket.gethostname()}, where a worker runs, has no embeddings "
            f"{key.hash}/{embeddings.view}, although the process that sent the job created them: it is another folder "
            "of the same name. Name a folder that all machines share, or a URL, with --cache."
        )
    return ViewTarget(embeddings, part.rows, view)


def _check_source(state: _WorkerState, rows: set[int]) -> None:
    """Raise DataError if the worker's source folder lacks images that are to be embedded."""
    ids = [state.store.info(row).id for row in sorted(rows - set(state.wanted))]
    if ids:
        raise DataError(
            f"{state.job.config.source} on {socket.gethostname()}, where a worker runs, lacks {len(ids)} images that "
            f"are to be embedded: {some(ids)}. Give every machine the same source folder under the same path."
        )


def check_same_encoder(expected: Mapping[str, str], identity: Mapping[str, str], worker: str) -> None:
    """Raise EncoderError unless a worker's encoder has the expected identity."""
    lines = [
        f"{name}: expected {value}, on {worker} {identity[name]}"
        for name, value in expected.items()
        if identity.get(name, value) != value
    ]
    if lines:
        raise EncoderError(
            "a worker has another encoder:\n  " + "\n  ".join(lines) + "\nGive every machine the same weights file, "
            "and set --precision if some machines have a GPU and some have none."
        )


def _absolute(path: str | Path) -> str:
    return str(home_expanded(path).absolute())
