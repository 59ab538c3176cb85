"""The replay of a run: what stays in place and how channels mix, learned from its own training rows, kept with it."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from nucseg.errors import ConfigError
from nucseg.replay import Replay, fit_mixing, position_pattern
from nucseg.replay.geometry import D4, NONE
from nucseg_cache import Embeddings, Key, Store
from nucseg_pipeline.augmentation import D4_VIEWS
from nucseg_pipeline.batch import collate
from nucseg_pipeline.checkpoint import write_whole
from nucseg_pipeline.config import TrainConfig
from nucseg_pipeline.rows import IDENTITY, READ_ROWS, Rows, batches, row_numbers, spread_evenly, stream
from nucseg_pipeline.run_folder import RunFolder

MOST_EXACT_IMAGES = 32
"""Images from which the mixing of channels is learned, at most: with more it hardly changes."""

ENOUGH_EXACT_IMAGES = 16
"""Images to embed in all orientations for it, those for validation and test included."""


def learns_mixing(config: TrainConfig) -> bool:
    """Whether a training learns from exact views what turns do to the channels."""
    return (
        config.replay == "learned"
        and config.views != "d4"  # which are the turned embeddings themselves
        and "none" not in (config.fusion, config.augmentation)
    )


def images_to_learn_from(store: Store, key: Key | None, config: TrainConfig, ids: Sequence[str]) -> tuple[str, ...]:
    """Those of a run's training images whose exact views its replay is learned from; none where it learns nothing.

    Raises:
        ConfigError: it is to learn, and no image has exact views.
    """
    if key is None or not learns_mixing(config):
        return ()
    rows = exact_rows(store, key, ids)
    if not rows:
        raise ConfigError(
            f"replay learned is learned from exact views of training images, and there are none of these {len(ids)} in "
            f"{store.location}. Run `nucseg embed --dataset {store.dataset} --views d4 --view-images "
            f"{ENOUGH_EXACT_IMAGES}` with the same encoder, or take --replay corrected."
        )
    return tuple(store.info(row).id for row in rows)


def open_replay(
    folder: RunFolder, config: TrainConfig, store: Store, key: Key | None, rows: Rows, accelerator: Accelerator
) -> Replay | None:
    """The replay of a run's configuration; None where embeddings are left as they are.

    Pattern and mixing are computed once, from the training rows and from those that inputs.json names, and kept in the
    run's folder.

    Raises:
        ConfigError: a kept file cannot be read.
    """
    if config.replay == "none":
        return None
    is_read = (config.views, config.augmentation) == ("d4", D4)
    if key is None or config.replay == "plain" or config.augmentation == NONE or is_read:
        return Replay()  # nothing is replayed, or all of it as it is

    def kept(name: str, compute: Callable[[], Tensor]) -> Tensor:
        return _kept(folder, name, compute, accelerator)

    pattern = kept("position.npy", lambda: position_pattern(_embeddings(rows)))
    if not learns_mixing(config):
        return Replay(pattern)

    def mixing() -> Tensor:
        return fit_mixing(_orbits(store, key, folder.inputs().learned_from), pattern.cpu())

    return Replay(pattern, kept("mixing.npy", mixing))


def exact_rows(store: Store, key: Key, ids: Sequence[str]) -> list[int]:
    """The rows of those ids that have all eight orientations; at most so many as are needed, spread evenly."""
    complete = set(row_numbers(store, ids))
    for view in D4_VIEWS:
        complete &= {info.row for info in store.embeddings(key, view).there()}
    return spread_evenly(sorted(complete), MOST_EXACT_IMAGES)


def _orbits(store: Store, key: Key, ids: Sequence[str]) -> Iterator[Tensor]:
    views: list[Embeddings] = [store.embeddings(key, view) for view in (IDENTITY, *D4_VIEWS)]
    for row in row_numbers(store, ids):
        yield torch.from_numpy(np.stack([view.read([row])[0] for view in views]))


def _embeddings(rows: Rows) -> Iterator[Tensor]:
    for share in stream(rows, batches(range(len(rows)), READ_ROWS)):
        embedding = collate(share).embedding
        if embedding is not None:
            yield embedding.cpu()


def _kept(folder: RunFolder, name: str, compute: Callable[[], Tensor], accelerator: Accelerator) -> Tensor:
    """The array in a file of the run, computed by the first process where it is not there.

    Behind the array, where numpy does not look, stands a digest of it and of what the run is made from.
    """
    path = folder.file(name)
    if accelerator.is_main_process and not path.exists():
        buffer = io.BytesIO()
        np.save(buffer, compute().cpu().numpy())
        write_whole(path, buffer.getvalue() + _digest(buffer.getvalue(), folder))
    accelerator.wait_for_everyone()
    try:
        content = path.read_bytes()
        array = torch.from_numpy(np.load(file := io.BytesIO(content), allow_pickle=False))
        whole, digest = content[: file.tell()], content[file.tell() :]
        if digest and digest != _digest(whole, folder):  # runs of before have none
            raise ValueError("it is not what was written for this run")
    except (OSError, ValueError, EOFError) as error:
        raise ConfigError(f"{path} cannot be read: {error}. Delete it: it is computed anew.") from None
    return array.to(accelerator.device)


def _digest(content: bytes, folder: RunFolder) -> bytes:
    return hashlib.sha256(content + folder.inputs().fingerprint.encode()).digest()
