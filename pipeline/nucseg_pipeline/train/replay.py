"""The replay of a run: positional pattern and channel mixing, learned from its training rows and kept in its folder."""

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
from nucseg_pipeline.loading.batch import collate
from nucseg_pipeline.loading.batches import READ_ROWS, batches
from nucseg_pipeline.loading.dataset import EmbeddingDataset, row_numbers
from nucseg_pipeline.loading.prefetch import stream
from nucseg_pipeline.runs.folder import RunFolder
from nucseg_pipeline.runs.selection import Selection, needs_channel_mixing


def open_replay(
    folder: RunFolder, selection: Selection, rows: EmbeddingDataset, accelerator: Accelerator
) -> Replay | None:
    """The replay of a run; None where its configuration leaves embeddings as they are.

    Pattern and mixing are computed once, from the training rows and from those that inputs.json names, and kept in the
    run's folder.

    Raises:
        ConfigError: a kept file cannot be read.
    """
    config, key = selection.config, selection.key
    if config.replay == "none":
        return None
    is_read = (config.views, config.augmentation) == ("d4", D4)
    if key is None or config.replay == "plain" or config.augmentation == NONE or is_read:
        return Replay()  # nothing is replayed, or without corrections

    pattern = _kept(folder, "position.npy", lambda: position_pattern(_embeddings(rows)), accelerator)
    if not needs_channel_mixing(config):
        return Replay(pattern)

    def mixing() -> Tensor:
        return fit_mixing(_orbits(selection.store, key, folder.inputs().learned_from), pattern.cpu())

    return Replay(pattern, _kept(folder, "mixing.npy", mixing, accelerator))


def _orbits(store: Store, key: Key, ids: Sequence[str]) -> Iterator[Tensor]:
    """The embeddings of each image in all eight orientations, (8, C, G, G)."""
    views: list[Embeddings] = [store.embeddings(key, view) for view in (IDENTITY, *D4_VIEWS)]
    for row in row_numbers(store, ids):
        yield torch.from_numpy(np.stack([view.read([row])[0] for view in views]))


def _embeddings(rows: EmbeddingDataset) -> Iterator[Tensor]:
    for read in stream(rows, batches(range(len(rows)), READ_ROWS)):
        embedding = collate(read).embedding
        if embedding is not None:
            yield embedding.cpu()


def _kept(folder: RunFolder, name: str, compute: Callable[[], Tensor], accelerator: Accelerator) -> Tensor:
    """The array in a file of the run; the first process computes it if there is no such file.

    The array is followed, where numpy does not read, by a digest of it and of what the run is made from.
    """
    path = folder.file(name)
    if accelerator.is_main_process and not path.exists():
        buffer = io.BytesIO()
        np.save(buffer, compute().cpu().numpy())
        folder.write(name, buffer.getvalue() + _digest(buffer.getvalue(), folder))
    accelerator.wait_for_everyone()
    try:
        content = path.read_bytes()
        array = torch.from_numpy(np.load(file := io.BytesIO(content), allow_pickle=False))
        if content[file.tell() :] != _digest(content[: file.tell()], folder):
            raise ValueError("it is not what was written for this run")
    except (OSError, ValueError, EOFError) as error:
        raise ConfigError(f"{path} cannot be read: {error}. Delete it: it is computed again.") from None
    return array.to(accelerator.device)


def _digest(content: bytes, folder: RunFolder) -> bytes:
    return hashlib.sha256(content + folder.inputs().fingerprint.encode()).digest()
