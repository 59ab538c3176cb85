"""Data sets by name."""

from pathlib import Path

from nucseg.data import conic, cryonuseg, dsb2018, nuinsseg
from nucseg.data import folder as own_folder
from nucseg.data.release import Release
from nucseg.data.sample import DataSet
from nucseg.data.synthetic import RELEASE as SYNTHETIC
from nucseg.data.synthetic import synthetic_dataset
from nucseg.errors import ConfigError, DataError, known
from nucseg.paths import home_expanded

_READERS = {
    nuinsseg.RELEASE: nuinsseg.open_nuinsseg,
    cryonuseg.RELEASE: cryonuseg.open_cryonuseg,
    conic.RELEASE: conic.open_conic,
    dsb2018.RELEASE: dsb2018.open_dsb2018,
    own_folder.RELEASE: own_folder.open_folder,
}


def releases() -> tuple[Release, ...]:
    """All data sets that `open_dataset` knows."""
    return (*_READERS, SYNTHETIC)


def release_named(name: str) -> Release:
    """Find a data set by name. Raises ConfigError for an unknown name."""
    for release in releases():
        if release.name == name:
            return release
    raise ConfigError(f"No data set is called {name!r}. {known(name, dataset_names())}")


def dataset_names() -> tuple[str, ...]:
    """Names accepted by `open_dataset`."""
    return tuple(release.name for release in releases())


def open_dataset(name: str, source: Path | None) -> DataSet:
    """List the data set `name` in the folder `source` (None for "synthetic"); masks are not decoded yet.

    Raises ConfigError for an unknown name, and for a missing or superfluous source; DataError if the folder does not
    have the data set's layout.
    """
    release = release_named(name)
    if release is SYNTHETIC:
        if source is not None:
            raise ConfigError(f"The data set {name} is generated, not read: leave out the source, {source}.")
        return synthetic_dataset()
    if source is None:
        raise ConfigError(f"The data set {name} is read from a folder: give it with --source DIR.")
    folder = home_expanded(source).absolute()
    try:
        str(folder).encode()
    except UnicodeEncodeError:
        raise DataError(
            f"The path {str(folder)!r} is not UTF-8, but a store records the path of its images. Rename the folder."
        ) from None
    if not folder.is_dir():
        state = "is not a folder" if folder.exists() else "does not exist"
        content = "the images and masks" if release is own_folder.RELEASE else f"the data set {name}"
        raise DataError(f"{folder} {state}. Give the folder of {content} (--source DIR).")
    return _READERS[release](folder)
