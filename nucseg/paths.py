"""Paths as people write them, and what lies there."""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path

from nucseg.errors import ConfigError


def home_expanded(path: Path | str) -> Path:
    """A path with the home folder in place of a leading `~` or `~NAME`. Raises ConfigError for a NAME of no user."""
    try:
        return Path(path).expanduser()
    except RuntimeError as cause:
        raise ConfigError(
            f"{path} begins with the home folder of a user who is not there ({cause}) Write ./{path} if a "
            "file is really called that, or name it in full."
        ) from None


@contextmanager
def opened_file(path: Path) -> Iterator[BufferedReader]:
    """Open a regular file to read. OSError for anything else: a pipe is waited for, and a device may have no end."""
    with open(path, "rb", opener=_without_waiting) as stream:
        if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            raise OSError(errno.EINVAL, "It is a pipe or a device, and a file is expected")
        yield stream


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY)
