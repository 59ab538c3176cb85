"""Data sets by name."""

from pathlib import Path

from nucseg.data.folder import open_folder
from nucseg.data.nuinsseg import open_nuinsseg
from nucseg.data.sample import DataSet
from nucseg.data.synthetic import synthetic_dataset
from nucseg.errors import ConfigError, DataError

_READERS = {"nuinsseg": open_nuinsseg, "folder": open_folder}
_DRAWN = "synthetic"


def dataset_names() -> tuple[str, ...]:
    """Names that `open_dataset` knows."""
    return (*_READERS, _DRAWN)


def open_dataset(name: str, source: Path | None) -> DataSet:
    """List the data set `name` in the folder `source` (None for "synthetic"); nothing is decoded yet.

    Raises ConfigError for an unknown name, a missing or a needless source; DataError if the folder is not what the
    data set's layout says.
    """
    if name == _DRAWN:
        if source is not None:
            raise ConfigError(f"The data set {name} is drawn, not read: leave out the source, {source}.")
        return synthetic_dataset()
    if name not in _READERS:
        raise ConfigError(f"No data set is called {name!r}; known are {', '.join(dataset_names())}.")
    if source is None:
        raise ConfigError(f"The data set {name} is read from a folder: say which one (--source DIR).")
    folder = source.expanduser().absolute()
    if not folder.is_dir():
        state = "is no folder" if folder.exists() else "is not there"
        raise DataError(f"{folder} {state}; name the folder that holds the data set {name} (--source DIR).")
    return _READERS[name](folder)
