"""Fetching a data set or weights: download, check, unpack, check again, and only then put it where the stages look."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nucseg.paths import home_expanded
from nucseg_pipeline.fetching.answers import discard
from nucseg_pipeline.fetching.archive import unpack
from nucseg_pipeline.fetching.catalogue import CATALOGUE, Item, item_named
from nucseg_pipeline.fetching.checking import check_dataset, check_digest, digest_of
from nucseg_pipeline.fetching.copying import copy_file, copy_folder, delete_folder
from nucseg_pipeline.fetching.download import Progress, Wanted, download
from nucseg_pipeline.fetching.errors import FetchError, RefusedError
from nucseg_pipeline.fetching.patience import Patience
from nucseg_pipeline.fetching.present import Fetched, accept, dataset_note, what_is_there
from nucseg_pipeline.fetching.record import recorded_file
from nucseg_pipeline.fetching.workplace import place, tidy, workplace

_PATIENCE = Patience()


def fetch(name: str, given: Path | None = None, *, progress: Progress, patience: Patience = _PATIENCE) -> Fetched:
    """Fetch a data set or weights by name, or take it from what the user has downloaded.

    What is there already, and is what it should be, is left as it is. Interrupted or killed, the next call goes on from
    where this one stopped.

    Args:
        name: `nuinsseg`, `vit_b`, ..., see `catalogue.CATALOGUE`.
        given: a file or folder that the user has downloaded, to be taken in place of a download.
        progress: called with (done, total, what); in MiB, but in images where they are read.
        patience: how long servers are waited for.

    Raises:
        ConfigError: nothing of that name can be fetched.
        FetchError: it is not to be had, not what it should be, there is no room for it, or it needs an account.
    """
    item = item_named(name)
    if given is not None:
        given = home_expanded(given).absolute()
        if not given.exists():
            raise FetchError(f"{given} is not there. Name the file or folder that you have downloaded (--from).")
    if found := item.find():
        there = accept(item, found, progress) if given == found else what_is_there(item, found)
        tidy(item.target)
        return there
    if given is None and item.by_hand:
        raise FetchError(instructions(item))
    with workplace(item.target) as work:
        if found := item.find():  # another process was faster
            return what_is_there(item, found)
        fetched = _bring(item, given, work, progress, patience)
        delete_folder(work)
        return fetched


def survey() -> tuple[tuple[Item, Path | None], ...]:
    """Everything that can be fetched, and where it is; nothing is read or checked."""
    return tuple((item, item.find()) for item in CATALOGUE.values())


def instructions(item: Item) -> str:
    """What a person has to do for a data set that needs an account."""
    steps = [step.format(address=item.address, target=item.target) for step in item.steps]
    lines = [f"  {number}. {step}" for number, step in enumerate(steps, 1)]
    return "\n".join([f"{item.title} needs an account, so it has to be downloaded by you:", *lines])


def _bring(item: Item, given: Path | None, work: Path, progress: Progress, patience: Patience) -> Fetched:
    if item.release is None:
        return _weights(item, given, work, progress, patience)
    if given is None:
        return _downloaded_dataset(item, work, progress, patience)
    return _given_dataset(item, given, work, progress)


def _weights(item: Item, given: Path | None, work: Path, progress: Progress, patience: Patience) -> Fetched:
    part = work / f"{item.file_name}.part"
    if given is not None:
        copy_file(given, part)
        came_from, way_out = str(given), f"{given} is left as it is. Download {item.address} again."
    else:
        came_from, way_out = item.url, _deleted(item)
        with _or_by_hand(item):
            download(Wanted(url=item.url, about_bytes=item.about_bytes, has_digest=True), part, progress, patience)
    with _useless_if_refused(part):
        check_digest(part, item.digest, item.digest_from, way_out)
    place(part, item.target, {"from": came_from, "bytes": part.stat().st_size, "digest": item.digest})
    return Fetched(item, item.target, True, (f"{item.digest}, {item.digest_from}",))


def _given_dataset(item: Item, given: Path, work: Path, progress: Progress) -> Fetched:
    folder = work / "unpacked"
    delete_folder(folder)
    try:
        if given.is_dir():
            copy_folder(item, given, folder, progress)
        else:
            unpack(given, folder, item.most_unpacked_bytes, progress)
        checks = check_dataset(item, folder, str(given), progress, is_published=False)
        digest = "" if given.is_dir() else digest_of(given, like="md5:")
        place(folder, item.target, dataset_note(folder, str(given), digest))
    finally:
        delete_folder(folder)
    return Fetched(item, item.target, True, (*checks, _not_compared(item, digest)))


def _downloaded_dataset(item: Item, work: Path, progress: Progress, patience: Patience) -> Fetched:
    part, folder = work / f"{item.file_name}.part", work / "unpacked"
    delete_folder(folder)
    with _or_by_hand(item):
        wanted, digest, stated = _wanted(item, patience)
        download(wanted, part, progress, patience)
    try:
        with _useless_if_refused(part):
            if digest:
                check_digest(part, digest, f"stated by {item.record}", _deleted(item))
            unpack(part, folder, item.most_unpacked_bytes, progress)
            checks = check_dataset(item, folder, item.file_name, progress, is_published=wanted.has_digest)
        place(folder, item.target, dataset_note(folder, wanted.url, digest or digest_of(part, like="sha256:")))
    finally:
        delete_folder(folder)
    return Fetched(item, item.target, True, (*stated, *checks))


def _wanted(item: Item, patience: Patience) -> tuple[Wanted, str, tuple[str, ...]]:
    """The file of a data set, its digest if one is published, and what it is held against."""
    if not item.record:
        told = "no digest is published: size as the server stated it, the CRC-32 of every file in the archive"
        return Wanted(url=item.url, about_bytes=item.about_bytes, is_archive=True), "", (told,)
    file = recorded_file(item.record, item.file_name, patience)
    wanted = Wanted(url=file.url, n_bytes=file.n_bytes, has_digest=True, is_archive=True)
    licence = f"; its licence there: {file.licence}" if file.licence else ""
    return wanted, file.digest, (f"{file.digest} and {file.n_bytes} bytes, as stated by {item.record}{licence}",)


def _not_compared(item: Item, digest: str) -> str:
    if not item.record:
        return "no digest is published that it could be held against"
    return f"not held against {item.record}, which states the MD5 of {item.file_name}" + (
        f"; its {digest}" if digest else ""
    )


def _deleted(item: Item) -> str:
    return (
        f"It was deleted. Run `nucseg fetch {item.name}` again; if that ends the same way, something between here and "
        f"there changes it, or the publisher has: compare with {item.record or item.address}."
    )


@contextmanager
def _or_by_hand(item: Item) -> Iterator[None]:
    """Every download that fails names the way around it."""
    try:
        yield
    except RefusedError:
        raise
    except FetchError as error:
        raise FetchError(
            f"{error} Or download {item.file_name} elsewhere, from {item.address}, and hand it over: "
            f"`nucseg fetch {item.name} --from {item.file_name}`."
        ) from None


@contextmanager
def _useless_if_refused(part: Path) -> Iterator[None]:
    """What was refused is deleted: with it no further attempt would succeed."""
    try:
        yield
    except RefusedError:
        discard(part)
        raise
