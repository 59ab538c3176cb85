"""Tiny samples and embeddings, the store that they make, and its files without zarr."""

import json
from collections.abc import Callable, Iterator, MutableMapping
from pathlib import Path
from typing import Any

import numpy as np
from fsspec.core import url_to_fs

from nucseg_cache import Key, SampleRow, Store

SIDE_PX = 8


def make_sample(number: int, *, image_version: int = 0, mask_version: int = 0, **changed: Any) -> SampleRow:
    """A sample of 8 x 8 pixels; the versions count the changes of its files."""
    random = np.random.default_rng((number, image_version, mask_version))
    fields: dict[str, Any] = {
        "id": f"image {number}",
        "group": f"slide {number // 2}",
        "stratum": "",
        "mpp": None if number % 2 else 0.25,
        "size": (8, 5 + number % 3),
        "image": np.random.default_rng((number, image_version)).integers(0, 255, (SIDE_PX, SIDE_PX, 3), dtype=np.uint8),
        "instances": random.integers(0, 9, (SIDE_PX, SIDE_PX), dtype=np.int32),
        "ignore": random.random((SIDE_PX, SIDE_PX)) < 0.5,
        "image_digest": bytes([1 + number, 100 + image_version]) * 16,
        "mask_digest": bytes([1 + number, 200 + mask_version]) * 16,
    }
    return SampleRow(**{**fields, **changed})


def make_embedding(number: int, *, image_version: int = 0) -> np.ndarray:
    """(256, 64, 64) float32 that every format stores exactly, all different, and quick to compress."""
    # a channel of only -1, 0 and 1 is exact in any number of codes
    values = np.repeat(-(np.arange(256, dtype=np.float32) % 2), 64 * 64).reshape(256, 64, 64)
    values[number, 1, 1 + image_version] = 1.0
    return values


def make_embeddings(*numbers: int) -> np.ndarray:
    """(n, 256, 64, 64), one embedding for each number."""
    return np.stack([make_embedding(number) for number in numbers])


def make_store(location: str | Path, n_rows: int = 3) -> Store:
    """A store of the first samples."""
    rows = [make_sample(number) for number in range(n_rows)]
    return Store.create(location, dataset="drawn", source="/data", preparation={"side_px": "8"}, rows=rows)


def make_key(**fields: str) -> Key:
    """A key, by default of format f16."""
    return Key({"architecture": "vit_b", "weights": "6923c33d" * 4, "format": "f16"} | fields)


class Files(MutableMapping[str, bytes]):
    """The files of a store by name, in a folder or on an object store, read and written without zarr."""

    def __init__(self, location: str | Path) -> None:
        self._fs, self._root = url_to_fs(str(location))

    def __getitem__(self, name: str) -> bytes:
        content: bytes = self._fs.cat_file(f"{self._root}/{name}")
        return content

    def __setitem__(self, name: str, content: bytes) -> None:
        path = f"{self._root}/{name}"
        self._fs.makedirs(path.rpartition("/")[0], exist_ok=True)
        self._fs.pipe_file(path, content)

    def __delitem__(self, name: str) -> None:
        self._fs.rm_file(f"{self._root}/{name}")

    def __iter__(self) -> Iterator[str]:
        return (name.removeprefix(f"{self._root}/") for name in self._fs.find(self._root))

    def __len__(self) -> int:
        return len(list(iter(self)))

    def edit(self, name: str, change: Callable[[dict[str, Any]], object]) -> None:
        """Change a JSON file."""
        document = json.loads(self[name])
        change(document)
        self[name] = json.dumps(document, indent=2).encode()
