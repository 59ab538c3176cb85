"""Write the results of an image: files stay in a hidden folder until all are complete."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucseg.data.slides import Mpp, Slide
from nucseg.errors import ConfigError
from nucseg.nuclei.stitching import RowBand
from nucseg_pipeline.files.locks import locked
from nucseg_pipeline.predict.export import NucleusTables
from nucseg_pipeline.predict.kept_rows import DamagedRows, KeptRows
from nucseg_pipeline.predict.nuclei import Nucleus
from nucseg_pipeline.predict.overlay import Overlay

INSTANCES, OVERLAY, SUMMARY, CONFIG = "instances.tif", "overlay.jpg", "summary.json", "config.toml"
FILES = (INSTANCES, "nuclei.geojson", "nuclei.csv", OVERLAY, CONFIG, SUMMARY)
"""The files of an image. The summary is moved last: a folder that has it is complete."""

TILE_PX = 512
"""Side of the tiles of the instance map."""

_CLASSIC_BYTES = (1 << 32) - (1 << 25)
_MICRONS_PER_CM = 10_000


def write_bands(
    folder: Path, slide: Slide, bands: Iterable[RowBand[Nucleus]], *, image_digest: str, mpp: Mpp | None
) -> NucleusTables:
    """Write instance map, table, GeoJSON and overlay while nuclei are found; returns the tables with their totals."""
    import tifffile

    overlay = Overlay(slide.size)
    n_bytes = 4 * slide.size[0] * slide.size[1]
    with (
        NucleusTables(folder, image_digest, mpp) as tables,
        tifffile.TiffWriter(folder / INSTANCES, bigtiff=n_bytes > _CLASSIC_BYTES) as tiff,
    ):

        def instance_rows() -> Iterator[NDArray[np.int32]]:
            for band in bands:
                tables.add(band.nuclei)
                overlay.add(band.instances)
                yield band.instances

        tiff.write(
            _tiles(instance_rows(), slide.size[1]), shape=slide.size, dtype=np.uint32, tile=(TILE_PX, TILE_PX),
            compression="zlib", photometric="minisblack", metadata=None, maxworkers=1, **_resolution(mpp),
        )  # fmt: skip
    (folder / OVERLAY).write_bytes(overlay.picture(slide))
    return tables


def read_finished(folder: Path, asked: Mapping[str, Any]) -> dict[str, Any] | None:
    """The summary of a complete folder made by the same request; None if files are missing or the request differs."""
    summary = _summary_in(folder)
    same = summary is not None and not is_of_another_request(folder, asked)
    return summary if same and all((folder / name).is_file() for name in FILES) else None


def is_of_another_request(folder: Path, asked: Mapping[str, Any]) -> bool:
    """Whether a folder holds the results of another image, run or options."""
    summary = _summary_in(folder)
    return summary is not None and summary.get("asked") != json.loads(json.dumps(dict(asked)))


def _summary_in(folder: Path) -> dict[str, Any] | None:
    try:
        summary = json.loads((folder / SUMMARY).read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return summary if isinstance(summary, dict) else None


@contextmanager
def draft_folder(folder: Path, asked: Mapping[str, Any]) -> Iterator[tuple[Path, KeptRows]]:
    """Yield a hidden folder whose files are moved to `folder` when the block ends without an error.

    The rows of tiles that are kept in it survive an interrupt, a kill and every error but `DamagedRows`, until the next
    request for `folder`, which continues after them if it is the same one.

    Args:
        folder: where the files belong.
        asked: everything that determines them.

    Raises:
        ConfigError: the files cannot be written, or another process is writing them.
    """
    draft = folder.with_name(f".{folder.name}.part")
    busy = ConfigError(f"Another process is writing to {folder}. Wait for it, or choose another folder with --out.")
    try:
        with locked(draft, busy):
            kept = KeptRows(draft, asked)
            _clear(draft, except_for=kept.folder)  # what a killed process or another request left
            try:
                yield draft, kept
                _publish(draft, folder)
            except DamagedRows:
                _clear(draft)
                raise
            except BaseException as stop:
                _clear(draft, except_for=kept.folder)
                if kept.n_rows:
                    stop.add_note(f"{folder.name}: {kept.description}.")
                raise
            else:
                _clear(draft)
            finally:
                with suppress(OSError):  # there are kept rows
                    draft.rmdir()
    except OSError as error:
        failure = ConfigError(
            f"The results cannot be written to {folder}: {error.strerror or error}. Fix that, or choose another folder "
            "with --out."
        )
        for note in getattr(error, "__notes__", ()):
            failure.add_note(note)
        raise failure from error


def _clear(draft: Path, *, except_for: Path | None = None) -> None:
    """Delete what is in a folder."""
    for leftover in draft.iterdir():
        if leftover == except_for:
            continue
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)


def _publish(draft: Path, folder: Path) -> None:
    for name in FILES:
        with (draft / name).open("rb") as file:
            os.fsync(file.fileno())
    folder.mkdir(exist_ok=True)
    with suppress(FileNotFoundError):
        (folder / SUMMARY).unlink()  # without a summary the folder counts as incomplete while files are replaced
    for name in FILES:
        (draft / name).replace(folder / name)


def _tiles(rows: Iterable[NDArray[np.int32]], width: int) -> Iterator[NDArray[np.uint32]]:
    """Cut bands of rows of any height into the tiles of a TIFF, in row order."""
    pending: NDArray[np.int32] = np.zeros((0, width), np.int32)
    for band in rows:
        pending = np.concatenate([pending, band])
        while len(pending) >= TILE_PX:
            yield from _cut(pending[:TILE_PX])
            pending = pending[TILE_PX:]
    if len(pending):
        yield from _cut(pending)


def _cut(rows: NDArray[np.int32]) -> Iterator[NDArray[np.uint32]]:
    for x in range(0, rows.shape[1], TILE_PX):
        tile = np.zeros((TILE_PX, TILE_PX), np.uint32)
        part = rows[:, x : x + TILE_PX]
        tile[: part.shape[0], : part.shape[1]] = part
        yield tile


def _resolution(mpp: Mpp | None) -> dict[str, Any]:
    if mpp is None:
        return {}
    return {"resolution": (_MICRONS_PER_CM / mpp[1], _MICRONS_PER_CM / mpp[0]), "resolutionunit": "CENTIMETER"}
