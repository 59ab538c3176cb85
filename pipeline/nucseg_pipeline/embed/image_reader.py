"""Native images, read ahead of the encoder by threads: decoded, shown as their view, brought to its input's size."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from nucseg.data import Entry, prepare_image
from nucseg.errors import DataError
from nucseg_cache import Store
from nucseg_pipeline.embed.sync import READERS
from nucseg_pipeline.embed.view_target import SIDE_PX, Target


@dataclass(frozen=True, eq=False)
class Job:
    """One embedding to make."""

    row: int
    target: Target


@dataclass(frozen=True, eq=False)
class Shown:
    """What the encoder is to see for one job."""

    job: Job
    image: NDArray[np.uint8]
    """(H, W, 3), the longest side as long as the encoder's input: a fraction of the memory of a large native image."""
    prepared: NDArray[np.uint8] | None
    """(S, S, 3), the prepared image where the view keeps one."""


@dataclass(frozen=True)
class Unusable:
    """An image that broke or changed since it was prepared."""

    id: str
    reason: str


class Reader:
    """Threads that read what is asked for, each native image once for all views that follow one another."""

    def __init__(
        self,
        store: Store,
        wanted: Mapping[int, Entry],
        resize: Callable[[NDArray[np.uint8]], NDArray[np.uint8]],
    ) -> None:
        """Read the wanted rows of a store, and bring their images to the encoder's size by `resize`."""
        self._store, self._wanted, self._resize = store, wanted, resize
        self._threads = ThreadPoolExecutor(READERS, "read")
        self._last: tuple[int, Future[NDArray[np.uint8]]] = (-1, Future())

    def __enter__(self) -> Reader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._threads.shutdown(cancel_futures=True)

    def begin(self, job: Job) -> Future[Shown | Unusable]:
        """Have a job's image read; ask for the jobs of a row one after the other."""
        if self._last[0] != job.row:
            self._last = job.row, self._threads.submit(self._native, job.row)
        # behind the native image in the same queue, so a thread that waits for it never keeps it from being read
        return self._threads.submit(self._shown, job, self._last[1])

    def _native(self, row: int) -> NDArray[np.uint8]:
        entry = self._wanted[row]
        image, digest = entry.read_image()
        if digest != self._store.info(row).image_digest:
            raise DataError(f"{entry.id} was changed while it was being embedded; run the command again.")
        return image

    def _shown(self, job: Job, native: Future[NDArray[np.uint8]]) -> Shown | Unusable:
        sample_id = self._wanted[job.row].id
        try:
            image = job.target.shown(native.result(), sample_id)
        except DataError as error:
            return Unusable(sample_id, str(error))
        prepared = prepare_image(image, side_px=SIDE_PX) if job.target.keeps_images else None
        return Shown(job, self._resize(image), prepared)
