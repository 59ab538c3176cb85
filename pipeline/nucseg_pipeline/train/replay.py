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
from nucseg.replay.transforms import D4, NONE
from nucseg.views.registry import D4_VIEWS, IDENTITY
from nucseg_cache import Embeddings, Key, Store
from nucseg_pipeline.config import TrainConfig
from nucseg_pipeline.files.atomic import write_whole
from nucseg_pipeline.loading.batch import collate
from nucseg_pipeline.loading.batches import READ_ROWS, batches
from nucseg_pipeline.loading.dataset import EmbeddingDataset, row_numbers, stream
from nucseg_pipeline.runs.folder import RunFolder
from nucseg_pipeline.runs.selection import needs_channel_mixing


def open_replay(
    folder: RunFolder,
    config: TrainConfig,
    store: Store,
    key: Key | None,
    rows: EmbeddingDataset,
    accelerator: Accelerator,
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
    if not needs_channel_mixing(config):
        return Replay(pattern)

    def mixing() -> Tensor:
        return fit_mixing(_orbits(store, key, folder.inputs().learned_from), pattern.cpu())

    return Replay(pattern, kept("mixing.npy", mixing))


def _orbits(store: Store, key: Key, ids: Sequence[str]) -> Iterator[Tensor]:
    views: list[Embeddings] = [store.embeddings(key, view) for view in (IDENTITY, *D4_VIEWS)]
    for row in row_numbers(store, ids):
        yield torch.from_numpy(np.stack([view.read([row])[0] for view in views]))


def _embeddings(rows: EmbeddingDataset) -> Iterator[Tensor]:
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
