"""Fetch a data set or weights: download, verify, unpack, read every image, and only then move it into place."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from nucseg.paths import home_expanded
from nucseg_pipeline.fetch.archive import unpack
from nucseg_pipeline.fetch.catalogue import CATALOGUE, Item, item_named
from nucseg_pipeline.fetch.connection import RetryPolicy
from nucseg_pipeline.fetch.download import RemoteFile, retrieve, zenodo_file
from nucseg_pipeline.fetch.errors import FetchError, RefusedError
from nucseg_pipeline.fetch.local_copy import copy_file, copy_folder
from nucseg_pipeline.fetch.staging import clean_up, move_into_place, staging_folder
from nucseg_pipeline.fetch.verify import (
    Fetched,
    accept_existing,
    check_dataset,
    check_digest,
    check_existing,
    dataset_note,
    digest_of,
)

if TYPE_CHECKING:
    from nucseg_pipeline.progress import Progress


_RETRY = RetryPolicy()


def fetch(name: str, local: Path | None = None, *, progress: Progress, retry: RetryPolicy = _RETRY) -> Fetched:
    """Fetch a data set or weights by name, or take them from what the user has downloaded.

    What is already in place is verified and left as it is. After an interruption, the next call continues.

    Args:
        name: `nuinsseg`, `vit_b`, ...: see `catalogue.CATALOGUE`.
        local: a file or folder that the user has downloaded, used instead of a download.
        progress: called with (done, total, what): in MiB, but in images while they are read.
        retry: how long to wait for servers.

    Raises:
        ConfigError: the name is not in the catalogue.
        FetchError: the download failed, was not what was expected, has no room, or needs an account.
    """
    item = item_named(name)
    if local is not None:
        local = home_expanded(local).absolute()
        if not local.exists():
            raise FetchError(f"{local} does not exist. Name the file or folder that you have downloaded (--from).")
    if found := item.find():
        existing = accept_existing(item, found, progress) if local == found else check_existing(item, found)
        clean_up(item.target)
        return existing
    if local is None and item.needs_account:
        raise FetchError(instructions(item))
    with staging_folder(item.target) as staging:
        if found := item.find():  # another process was faster
            return check_existing(item, found)
        if local is None:
            fetched = _download(item, staging, progress, retry)
        else:
            fetched = _take_local(item, local, staging, progress)
        shutil.rmtree(staging)
        return fetched


def survey() -> tuple[tuple[Item, Path | None], ...]:
    """Everything that can be fetched, and where it is; nothing is read or verified."""
    return tuple((item, item.find()) for item in CATALOGUE.values())


def instructions(item: Item) -> str:
    """What the user has to do for a data set that needs an account."""
    steps = [step.format(address=item.address, target=item.target) for step in item.steps]
    lines = [f"  {number}. {step}" for number, step in enumerate(steps, 1)]
    return "\n".join([f"{item.title} needs an account, so you have to download it yourself:", *lines])


def _download(item: Item, staging: Path, progress: Progress, retry: RetryPolicy) -> Fetched:
    try:
        with _suggest_local(item):
            file = RemoteFile(item.file_name, item.url, item.digest)
            if item.record:
                file = zenodo_file(item.record, item.file_name, retry)
            downloaded = retrieve(file, staging, progress, retry)
        if item.release is None:
            return _place_weights(item, downloaded, file.url)
        return _place_dataset(item, downloaded, file, staging, progress)
    except RefusedError:
        shutil.rmtree(staging)  # no further attempt could succeed with the refused file
        raise


def _take_local(item: Item, local: Path, staging: Path, progress: Progress) -> Fetched:
    if item.release is not None:
        return _place_dataset(item, local, RemoteFile(str(local), str(local)), staging, progress)
    copy = staging / item.file_name
    try:
        copy_file(local, copy)
        check_digest(copy, item, str(local), f"The file is left as it is. Download {item.address} again.")
        return _place_weights(item, copy, str(local))
    finally:
        copy.unlink(missing_ok=True)


def _place_weights(item: Item, file: Path, source: str) -> Fetched:
    move_into_place(file, item.target, {"from": source, "bytes": file.stat().st_size, "digest": item.digest})
    return Fetched(item, item.target, True, (f"{item.digest}, pinned by micro-sam",))


def _place_dataset(item: Item, source: Path, file: RemoteFile, staging: Path, progress: Progress) -> Fetched:
    """Unpack an archive or copy a folder, read the data set in it, and move it into place; `file` is its origin."""
    folder = staging / "unpacked"
    shutil.rmtree(folder, ignore_errors=True)  # left by a killed process
    try:
        if source.is_dir():
            copy_folder(item, source, folder, progress)
        else:
            unpack(source, folder, item.max_unpacked_bytes, progress)
        checks = check_dataset(item, folder, file.name, progress, is_published=bool(file.digest))
        digest = file.digest or ("" if source.is_dir() else digest_of(source, "md5"))
        move_into_place(folder, item.target, dataset_note(folder, file.url, digest))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return Fetched(item, item.target, True, (*checks, _digest_check(item, file, digest)))


def _digest_check(item: Item, file: RemoteFile, digest: str) -> str:
    """What the digest of a data set was compared with."""
    if file.digest:
        return f"{digest}, stated by {item.record}; licence stated there: {file.licence or 'none'}"
    published = f"not compared with {item.record}, which states the MD5 of {item.file_name}" if item.record else ""
    return (published or "no digest is published to compare with") + (f"; this one is {digest}" if digest else "")


@contextmanager
def _suggest_local(item: Item) -> Iterator[None]:
    """Add to every failed download how to go on without it."""
    try:
        yield
    except FetchError as error:
        raise type(error)(
            f"{error} Run the same command again, or download {item.file_name} elsewhere, from {item.address}, and run "
            f"`nucseg fetch {item.name} --from {item.file_name}`."
        ) from None
