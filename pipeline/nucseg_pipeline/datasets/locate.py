"""Where the folder of a data set is: given, recorded in its store, or in one of the known places."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from nucseg.data import DataSet, dataset_names, open_dataset
from nucseg.data.conversion import check_conversion
from nucseg.data.file_entries import ImageFileEntry
from nucseg.data.official_splits import plain_name, stain_of
from nucseg.errors import ConfigError, suggestion
from nucseg_pipeline.datasets.normalised import stain_normalised

FOLDER, SYNTHETIC = "folder", "synthetic"


def layout_name(dataset: str) -> str:
    """The known data set whose folder layout a name has; `folder` for any other name."""
    plain = plain_name(dataset)
    return plain if plain in dataset_names() else FOLDER


def known_places(dataset: str) -> tuple[Path, ...]:
    """The folders that are searched for a data set if none is given."""
    data, plain = os.environ.get("NUCSEG_DATA"), plain_name(dataset)
    return (*((Path(data) / plain,) if data else ()), Path("data") / plain)


def places(dataset: str, remembered: str = "") -> tuple[Path, ...]:
    """The folders that are searched for a data set, the one recorded in its store first."""
    first = (Path(remembered),) if remembered else ()
    return tuple(dict.fromkeys((*first, *known_places(dataset))))


def find_folder(dataset: str, remembered: str = "") -> Path | None:
    """The first of these folders that exists."""
    return next((place for place in places(dataset, remembered) if place.is_dir()), None)


def open_source(dataset: str, given: Path | None, remembered: str = "", convert: str = "none") -> DataSet:
    """List the images of a data set.

    A name that is not a known data set stands for a folder of images and masks. A stain after an "@", as in
    `nuinsseg@macenko`, does not change where the images are: they are normalised when they are read.

    Args:
        dataset: `nuinsseg`, `synthetic`, ..., or any name for a folder of images and masks.
        given: the folder that was asked for, if any.
        remembered: the folder recorded in the store, if any.
        convert: how images of more than 8 bits are read.

    Raises:
        ConfigError: no folder was found, one was given for a data set that needs none, or there is no such conversion,
            or nothing that it could apply to.
        DataError: the folder does not have the layout of the data set.
    """
    layout = layout_name(dataset)
    source = given if layout == SYNTHETIC else given or _folder(dataset, remembered)
    found = _converted(open_dataset(layout, source), convert)
    return replace(stain_normalised(found, stain_of(dataset)), name=dataset)


def _converted(dataset: DataSet, convert: str) -> DataSet:
    """The data set with its image files read as `convert` says."""
    check_conversion(convert)
    if convert == "none":
        return dataset
    entries = tuple(replace(entry, convert=convert) for entry in dataset.entries if isinstance(entry, ImageFileEntry))
    if not entries:
        raise ConfigError(
            f"--convert applies to image files, and {dataset.name} has none: its images have 8 bits. Leave it out."
        )
    return replace(dataset, entries=entries)


def _folder(dataset: str, remembered: str) -> Path:
    folder = find_folder(dataset, remembered)
    if folder is not None:
        return folder
    names = dataset_names()
    plain = plain_name(dataset)
    near = suggestion(plain, names)
    known = "" if plain in names else f" It is none of the known data sets ({', '.join(names)}). {near}".rstrip()
    fetched = f"`nucseg fetch {plain}` downloads it. Or name" if plain in names and plain != FOLDER else "Name"
    raise ConfigError(
        f"No folder is known for the data set {dataset!r}; looked in "
        f"{', '.join(map(str, places(dataset, remembered)))}.{known} "
        f"{fetched} the folder with --source DIR, or set NUCSEG_DATA to the folder that holds it."
    )
