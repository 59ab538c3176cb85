"""Errors of the cache. Each message says what was found, what was expected and what to do."""

import errno
import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


class CacheError(Exception):
    """Base class of the cache's errors that a user can act on."""


class StoreNotFound(CacheError):
    """There is no store at the given location."""


class StoreExists(CacheError):
    """The location of a new store is not empty, or an id occurs twice."""


class StoreFormatError(CacheError):
    """The store has another format version, or it is not a store of nucseg."""


class StoreDamaged(CacheError):
    """Attributes or array metadata differ from what was sealed."""


class StoreAccessError(CacheError):
    """The store cannot be read or written because of space, permission or network."""


class EmbeddingNotFound(CacheError):
    """No embedding, or more than one, matches the request."""


class ViewDiffers(CacheError):
    """The store has a view of that name that was made in another way."""


class UnstorableEmbedding(CacheError):
    """An embedding cannot be stored in the chosen format: not finite, too large, or of another shape."""


class UnstorableSample(CacheError):
    """A sample cannot be stored: of another shape or type than the store's, or with an id that is not valid Unicode."""


@dataclass(frozen=True)
class BadRow:
    """A row that must not be used, and why."""

    row: int
    id: str
    reason: str

    def __str__(self) -> str:
        return f"row {self.row} ({self.id or 'its id is unreadable'}): {self.reason}"


def minimal_embed_command(location: str, fields: Mapping[str, str] | None = None, view: str = "identity") -> str:
    """The command that fills a store, as far as the store knows it, for messages.

    Args:
        location: the store, CACHE/DATASET.zarr.
        fields: what is asked of the embeddings, as in a key; none are needed if it is empty, and None leaves the
            encoder to the user. The place of an encoder's file is not recorded: FILE stands for it.
        view: of the embeddings. Views are named after what they are embedded with, `d4-3` with `--views d4`.
    """
    cache, _, name = location.rstrip("/").rpartition("/")
    words = ["nucseg", "embed", "--dataset", name.removesuffix(".zarr"), "--cache", cache or "."]
    if fields is not None and not fields:
        return shlex.join([*words, "--encoder", "none"])
    options = dict(fields or {})
    if architecture := options.get("architecture"):
        suffix = {"onnx": ":FILE", "random": f":{options.get('seed', 0)}"}.get(architecture, "")
        options["encoder"] = architecture + suffix
    options["views"] = view.rpartition("-")[0]
    known = ("encoder", "precision", "format", "views")
    return shlex.join([*words, *(word for name in known if options.get(name) for word in (f"--{name}", options[name]))])


class RowDamaged(CacheError):
    """Rows whose content does not match their record; the message names row and id."""

    def __init__(
        self,
        location: str,
        what: str,
        bad: Sequence[BadRow],
        fields: Mapping[str, str] | None = None,
        view: str = "identity",
    ) -> None:
        """Name the rows; `fields` and `view` are those of the embeddings, if they are rows of these."""
        self.bad = tuple(bad)
        listed = "".join(f"\n  {row}" for row in self.bad[:LISTED_ROWS])
        more = f"\n  and {len(self.bad) - LISTED_ROWS} more" if len(self.bad) > LISTED_ROWS else ""
        super().__init__(
            f"{len(self.bad)} row(s) of {what} in {location} are damaged or missing:{listed}{more}\n"
            f"Run `nucseg cache verify {shlex.quote(location)}`, which finds all such rows, and then "
            f"`{minimal_embed_command(location, fields or {}, view)}`, which recomputes them and keeps all others."
        )


class Unreachable(OSError):
    """An object store that does not answer or denies access."""


LISTED_ROWS = 8
"""Rows that a message names; the others are counted."""

_THEN = (
    ". Then run `nucseg cache verify {location}`, which finds the rows it held, and `{embed}`, which recomputes them"
)

_WAYS_OUT = {
    errno.ENOENT: "Create the missing bucket or folder, or choose another place with --cache",
    errno.ENOSPC: "Free some space there, or choose another place with --cache, and run the same command again",
    errno.EDQUOT: "Free some of your quota, or choose another place with --cache, and run the same command again",
    errno.EACCES: "Get the permission, or choose another place with --cache",
    errno.EPERM: "Get the permission, or choose another place with --cache",
    errno.EISDIR: "There is a folder where a file is needed{file}{then}",
    errno.EEXIST: "There is a file where a folder is needed{file}, or choose another place with --cache",
    errno.ENOTDIR: "There is a file where a folder is needed{file}, or choose another place with --cache",
    errno.EROFS: "Mount it writable, or choose another place with --cache",
    errno.ENOLCK: "The file system has no locks; choose a place with --cache that has them",
}

_NUMBERS = {FileNotFoundError: errno.ENOENT, PermissionError: errno.EACCES}

_NETWORK = (
    "Check the network, the address and the credentials (for s3:// AWS_ENDPOINT_URL_S3, AWS_ACCESS_KEY_ID and "
    "AWS_SECRET_ACCESS_KEY, or a profile in ~/.aws), and run the same command again"
)


@contextmanager
def access(location: str, doing: str) -> Iterator[None]:
    """Turn a failure of the file system or the network into an error that says what to do.

    Raises:
        StoreAccessError: instead of any OSError raised inside.
    """
    try:
        yield
    except OSError as error:
        reason = str(error.strerror or error).rstrip(".")
        raise StoreAccessError(
            f"{doing} {location} failed: {reason}. {_way_out(error, location)}. Finished work is kept."
        ) from error


def _way_out(error: OSError, location: str) -> str:
    if isinstance(error, Unreachable):
        return _NETWORK
    # errors of an object store often have a type but no number
    number = error.errno or next((n for kind, n in _NUMBERS.items() if isinstance(error, kind)), 0)
    file = _file_of(error)
    then = _THEN.format(location=shlex.quote(location), embed=minimal_embed_command(location))
    if number in _WAYS_OUT:
        file_part = f": delete {file}" if file else "; move it away"
        return _WAYS_OUT[number].replace("{file}", file_part).replace("{then}", then)
    if "://" in location:
        return _NETWORK
    if file is None:
        return "Fix that, and run the same command again"
    return f"Fix that file, or delete {file}{then}"


def _file_of(error: OSError) -> Path | None:
    """The file that the error names, or the file above it that should be a folder; None if the error names none."""
    name = error.filename2 or error.filename
    if not isinstance(name, (str, os.PathLike)):
        return None
    path = Path(name)
    return next((parent for parent in reversed(path.parents) if parent.is_file()), path)
