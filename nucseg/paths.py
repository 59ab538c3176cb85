"""Expand paths as users write them, and open regular files only."""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path

from nucseg.errors import ConfigError


def as_path(path: Path | str) -> Path:
    """A path as it is, since a shell has expanded it; a string as a path, with a leading `~/` as the home folder."""
    return Path(path).expanduser() if isinstance(path, str) and path.startswith("~/") else Path(path)


def home_expanded(path: Path | str) -> Path:
    """Replace a leading `~` or `~NAME` by the home folder. Raises ConfigError if there is no user NAME."""
    try:
        return Path(path).expanduser()
    except RuntimeError as cause:
        raise ConfigError(
            f"{path} starts with the home folder of an unknown user ({cause}) Write ./{path} if that is the name of "
            "a file, or give the full path."
        ) from None


@contextmanager
def opened_file(path: Path) -> Iterator[BufferedReader]:
    """Open a regular file for reading. OSError for a pipe, which would block, or a device, which may have no end."""
    with open(path, "rb", opener=_open_without_blocking) as stream:
        if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            raise OSError(errno.EINVAL, "It is a pipe or a device, and a file is expected")
        yield stream


def _open_without_blocking(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY)
