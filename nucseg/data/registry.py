"""Data sets by name."""

from pathlib import Path

from nucseg.data import conic, cryonuseg, dsb2018, folder, nuinsseg
from nucseg.data.release import Release
from nucseg.data.sample import DataSet
from nucseg.data.synthetic import RELEASE as SYNTHETIC
from nucseg.data.synthetic import synthetic_dataset
from nucseg.errors import ConfigError, DataError
from nucseg.paths import home_expanded

_READERS = {
    nuinsseg.RELEASE: nuinsseg.open_nuinsseg,
    cryonuseg.RELEASE: cryonuseg.open_cryonuseg,
    conic.RELEASE: conic.open_conic,
    dsb2018.RELEASE: dsb2018.open_dsb2018,
    folder.RELEASE: folder.open_folder,
}


def releases() -> tuple[Release, ...]:
    """What is known of each data set that `open_dataset` knows."""
    return (*_READERS, SYNTHETIC)


def release_named(name: str) -> Release:
    """What is known of one data set. Raises ConfigError for an unknown name."""
    for known in releases():
        if known.name == name:
            return known
    raise ConfigError(f"No data set is called {name!r}; known are {', '.join(dataset_names())}.")


def dataset_names() -> tuple[str, ...]:
    """Names that `open_dataset` knows."""
    return tuple(known.name for known in releases())


def open_dataset(name: str, source: Path | None) -> DataSet:
    """List the data set `name` in the folder `source` (None for "synthetic"); masks are not decoded yet.

    Raises ConfigError for an unknown name, a missing or a needless source; DataError if the folder is not what the
    data set's layout says.
    """
    known = release_named(name)
    if known is SYNTHETIC:
        if source is not None:
            raise ConfigError(f"The data set {name} is drawn, not read: leave out the source, {source}.")
        return synthetic_dataset()
    if source is None:
        raise ConfigError(f"The data set {name} is read from a folder: say which one (--source DIR).")
    place = home_expanded(source).absolute()
    try:
        str(place).encode()
    except UnicodeEncodeError:
        raise DataError(
            f"The path {str(place)!r} is no text in UTF-8, and a store records where its images lie. Rename the folder."
        ) from None
    if not place.is_dir():
        state = "is no folder" if place.exists() else "is not there"
        raise DataError(f"{place} {state}; name the folder that holds the data set {name} (--source DIR).")
    return _READERS[known](place)
