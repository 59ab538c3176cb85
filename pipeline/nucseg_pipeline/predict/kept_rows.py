"""Finished rows of tiles, kept on disk so that a prediction that was stopped continues after them.

The maps are stored exactly, so that the result is the same, byte for byte, as without a stop. Finding the nuclei in
them is repeated; it takes a small part of the time of predicting them.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucseg.errors import DataError
from nucseg.tiling import Maps
from nucseg_pipeline.files.atomic import write_whole

FREE_SHARE = 0.5
"""Share of the free disk space that the rows of an image may take; later rows are not kept."""

_STATE = "state.json"


class DamagedRows(DataError):
    """A kept row is missing or damaged."""


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """The state of a prediction between two rows of tiles."""

    blended: NDArray[np.float32]
    """The sums of the tiles that reach into the next rows, see `nucseg.tiling.Blend`."""
    counts: Mapping[str, Any]
    """What happened to the tiles so far."""


class KeptRows:
    """The finished rows of one image, in a folder whose name is the digest of what was asked for."""

    def __init__(self, parent: Path, asked: Mapping[str, Any]) -> None:
        """Find the rows that a stopped prediction with the same request has left in a folder, if any.

        Args:
            parent: the folder in which rows are kept.
            asked: everything that determines the maps. Rows of another request are not used.
        """
        self.folder = parent / hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:32]
        self._state = _state_in(self.folder)
        self._max_bytes = FREE_SHARE * shutil.disk_usage(parent).free
        self._is_full = False

    @property
    def n_rows(self) -> int:
        """Number of rows of tiles that are kept."""
        return len(self._state["rows"])

    @property
    def n_bytes(self) -> int:
        """Disk space of the rows."""
        return sum(row["bytes"] for row in self._state["rows"])

    @property
    def description(self) -> str:
        """How much is kept, and where."""
        rows = f"{self.n_rows} finished row{'s' if self.n_rows != 1 else ''} of tiles"
        return f"{rows}, {self.n_bytes / 2**20:.1f} MiB, kept in {self.folder.parent}"

    def rows(self) -> Iterator[Maps]:
        """Yield the maps (C, h, W) of the kept rows from top to bottom. Raises DamagedRows if a file is."""
        for number, entry in enumerate(self._state["rows"]):
            yield self._read(_row_file(number), entry)

    def checkpoint(self) -> Checkpoint | None:
        """The state after the last kept row; None if there is none. Raises DamagedRows if its file is."""
        if not self.n_rows:
            return None
        return Checkpoint(self._read(_blend_file(self.n_rows), self._state["blend"]), self._state["counts"])

    def add(self, maps: Maps, after: Checkpoint) -> None:
        """Keep another row and the state after it; does nothing once the disk space is used up or cannot be written."""
        if self._is_full:
            return
        number = self.n_rows
        row, blend = _packed(maps), _packed(after.blended)
        self._is_full = self.n_bytes + len(row) + 2 * len(blend) > self._max_bytes
        if self._is_full:
            return
        rows = [*self._state["rows"], _entry(maps, row)]
        state = {"rows": rows, "blend": _entry(after.blended, blend), "counts": dict(after.counts)}
        try:
            self.folder.mkdir(exist_ok=True)
            write_whole(self.folder / _row_file(number), row)
            write_whole(self.folder / _blend_file(number + 1), blend)
            write_whole(self.folder / _STATE, json.dumps(state).encode())  # last: it makes the row count
        except OSError:  # the prediction itself does not need these files
            self._is_full = True
            return
        self._state = state
        with suppress(OSError):
            (self.folder / _blend_file(number)).unlink()

    def _read(self, name: str, entry: Mapping[str, Any]) -> NDArray[np.float32]:
        try:
            packed = (self.folder / name).read_bytes()
            if hashlib.sha256(packed).hexdigest() != entry["sha256"]:
                raise ValueError("its digest is wrong")
        except (OSError, ValueError) as error:
            raise DamagedRows(
                f"A kept row of tiles, {self.folder / name}, is missing or damaged ({error}). All kept rows of this "
                "image were deleted; run the same command again to start it over."
            ) from error
        return _unpacked(packed, entry["shape"])


def _state_in(folder: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError):
        state = json.loads((folder / _STATE).read_bytes())
        if isinstance(state, dict) and state.keys() == {"rows", "blend", "counts"}:
            return state
    return {"rows": [], "blend": {}, "counts": {}}


def _row_file(number: int) -> str:
    return f"row-{number:05d}"


def _blend_file(n_rows: int) -> str:
    return f"blend-{n_rows:05d}"


def _entry(values: NDArray[np.float32], packed: bytes) -> dict[str, Any]:
    return {"shape": values.shape, "bytes": len(packed), "sha256": hashlib.sha256(packed).hexdigest()}


def _packed(values: NDArray[np.float32]) -> bytes:
    from numcodecs import Blosc

    return bytes(Blosc("zstd", clevel=3, shuffle=Blosc.SHUFFLE).encode(np.ascontiguousarray(values)))


def _unpacked(packed: bytes, shape: Sequence[int]) -> NDArray[np.float32]:
    from numcodecs import Blosc

    return np.frombuffer(bytes(Blosc().decode(packed)), np.float32).reshape(shape)
