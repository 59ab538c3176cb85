"""Where a data set lies: given, remembered by its store, or in one of the known places."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from nucseg.data import DataSet, dataset_names, open_dataset
from nucseg.errors import ConfigError

FOLDER, SYNTHETIC = "folder", "synthetic"


def known_places(dataset: str) -> tuple[Path, ...]:
    """The folders in which a data set is looked for when none is given."""
    data = os.environ.get("NUCSEG_DATA")
    return (*((Path(data) / dataset,) if data else ()), Path("data") / dataset)


def open_source(dataset: str, given: Path | None, remembered: str = "") -> DataSet:
    """List the images of a data set.

    A name that is none of the known data sets is the user's own name for a folder of images and masks.

    Args:
        dataset: `nuinsseg`, `synthetic`, ..., or any name for a folder of one's own.
        given: the folder that was asked for, if any.
        remembered: the folder that the store was made from, if any.

    Raises:
        ConfigError: no folder is known for the data set.
        DataError: the folder is not what the layout says.
    """
    layout = dataset if dataset in dataset_names() else FOLDER
    source = None if layout == SYNTHETIC else _folder(dataset, given, remembered)
    return replace(open_dataset(layout, source), name=dataset)


def _folder(dataset: str, given: Path | None, remembered: str) -> Path:
    if given is not None:
        return given
    places: tuple[Path, ...] = (*((Path(remembered),) if remembered else ()), *known_places(dataset))
    for place in places:
        if place.is_dir():
            return place
    known = "" if dataset in dataset_names() else f" It is none of the known data sets ({', '.join(dataset_names())})."
    raise ConfigError(
        f"No folder is known for the data set {dataset!r}; looked in {', '.join(map(str, places))}.{known} "
        "Name the folder with --source DIR, or set NUCSEG_DATA to the folder that holds it."
    )
