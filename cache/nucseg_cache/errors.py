"""What can be wrong with a cache: each message says what was found, what was expected and the way out."""

from __future__ import annotations

import errno
import os
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


class CacheError(Exception):
    """The base of every error of the cache that the user can act on."""


class StoreNotFound(CacheError):
    """There is no store at the given place."""


class StoreExists(CacheError):
    """A store is already at the place where one was to be created."""


class StoreFormatError(CacheError):
    """The store was written in another version of the format, or is no store at all."""


class StoreDamaged(CacheError):
    """What describes the arrays (attributes, array metadata) is not what was sealed."""


class StoreAccessError(CacheError):
    """The store cannot be read or written for a reason outside of it: space, permission, network."""


class EmbeddingNotFound(CacheError):
    """No embedding, or more than one, matches what was asked for."""


class ViewDiffers(CacheError):
    """A view of that name is there, and it was made in another way than the one asked for."""


class UnstorableEmbedding(CacheError):
    """An embedding cannot be stored in the chosen format: not finite, too large, of another shape."""


class UnstorableSample(CacheError):
    """A sample cannot be stored: another shape or type than the store's, a name that is no Unicode text."""


@dataclass(frozen=True)
class BadRow:
    """One row that must not be used, and why."""

    row: int
    id: str
    reason: str

    def __str__(self) -> str:
        return f"row {self.row} ({self.id or 'its id cannot be told'}): {self.reason}"


class RowDamaged(CacheError):
    """Rows whose content is not what their record says. They are named by row and id."""

    def __init__(self, location: str, what: str, bad: Sequence[BadRow]) -> None:
        self.bad = tuple(bad)
        shown = "".join(f"\n  {row}" for row in self.bad[:LISTED_ROWS])
        more = f"\n  and {len(self.bad) - LISTED_ROWS} more" if len(self.bad) > LISTED_ROWS else ""
        super().__init__(
            f"{len(self.bad)} row(s) of {what} in {location} are not what was written:{shown}{more}\n"
            f"Run `nucseg cache verify {shlex.quote(location)}`, which finds all such rows, and then `nucseg embed` "
            "for this data set: it computes them anew and keeps all others."
        )


class Unreachable(OSError):
    """An object store that does not answer, or does not let us in."""


LISTED_ROWS = 8

_THEN = ". Then `nucseg cache verify` finds what it held, and `nucseg embed` makes that anew"

_WAYS_OUT = {
    errno.ENOENT: "Create the bucket or folder that is not there, or choose another place with --cache",
    errno.ENOSPC: "Free some space there, or choose another place with --cache, and run the same command again",
    errno.EDQUOT: "Free some of your quota, or choose another place with --cache, and run the same command again",
    errno.EACCES: "Ask for the permission, or choose another place with --cache",
    errno.EPERM: "Ask for the permission, or choose another place with --cache",
    errno.EISDIR: "A folder stands where a file is needed{file}" + _THEN,
    errno.EEXIST: "A file stands where a folder is needed{file}, or choose another place with --cache",
    errno.ENOTDIR: "A file stands where a folder is needed{file}, or choose another place with --cache",
    errno.EROFS: "Mount it writable, or choose another place with --cache",
    errno.ENOLCK: "The file system offers no locks; choose a place with --cache that does",
}


_NUMBERS = {FileNotFoundError: errno.ENOENT, PermissionError: errno.EACCES}

_NETWORK = (
    "Look at the network, the address and the credentials (for s3:// AWS_ENDPOINT_URL_S3, AWS_ACCESS_KEY_ID and "
    "AWS_SECRET_ACCESS_KEY, or a profile in ~/.aws), and run the same command again"
)


@contextmanager
def access(location: str, doing: str) -> Iterator[None]:
    """Turn a failure of the file system or the network into one clear message.

    Raises:
        StoreAccessError: instead of any OSError raised inside.
    """
    try:
        yield
    except OSError as error:
        reason = str(error.strerror or error).rstrip(".")
        raise StoreAccessError(
            f"{doing} {location} failed: {reason}. {_way_out(error, location)}; everything that was finished is kept."
        ) from error


def _way_out(error: OSError, location: str) -> str:
    if isinstance(error, Unreachable):
        return _NETWORK
    # what comes from an object store often has a type and no number
    number = error.errno or next((n for kind, n in _NUMBERS.items() if isinstance(error, kind)), 0)
    file = _file_of(error)
    if number in _WAYS_OUT:
        return _WAYS_OUT[number].replace("{file}", f": delete {file}" if file else "; move it away")
    if "://" in location:
        return _NETWORK
    if file is None:
        return "Mend that, and run the same command again"
    return f"It is about one file: mend that, or delete {file}{_THEN}"


def _file_of(error: OSError) -> Path | None:
    """What the failure is about: the file, or the file above it that should be a folder; None where it is not said."""
    named = error.filename2 or error.filename
    if not isinstance(named, (str, os.PathLike)):
        return None
    path = Path(named)
    return next((above for above in reversed(path.parents) if above.is_file()), path)
