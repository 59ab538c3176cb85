"""What the user has downloaded, brought beside its place, so that it can be checked there and then given its name."""

from __future__ import annotations

import shutil
from pathlib import Path

from nucseg_pipeline.fetching.catalogue import Item
from nucseg_pipeline.fetching.checking import Inventory, listed
from nucseg_pipeline.fetching.download import MIB, Progress
from nucseg_pipeline.fetching.errors import FetchError, RefusedError
from nucseg_pipeline.fetching.workplace import check_space, sync_file, sync_files


def copy_file(given: Path, to: Path) -> None:
    """Copy one file, and bring it to the disk."""
    if not given.is_file():
        raise FetchError(f"{given} is no file. Name the file that you have downloaded (--from).")
    check_space(to.parent, given.stat().st_size, str(given))
    try:
        shutil.copyfile(given, to)
        sync_file(to)
    except OSError as error:
        raise FetchError(f"{given} cannot be copied to {to}: {error.strerror}.") from None


def copy_folder(item: Item, given: Path, to: Path, progress: Progress) -> None:
    """Copy a data set's folder, which is left as it is; links are followed. `progress` is called with MiB.

    Raises RefusedError where the folder does not hold that data set, or much else besides.
    """
    listed(item, given, str(given))
    inventory = Inventory.of(given)
    if inventory.n_bytes > item.most_unpacked_bytes:
        raise RefusedError(
            f"{given} holds {inventory.n_bytes} bytes, where {item.title} has {item.most_unpacked_bytes} at most. Name "
            "the folder that holds the data set alone (--from)."
        )
    check_space(to.parent, inventory.n_bytes, str(given))
    done = 0

    def copy(source: str, target: str) -> None:
        nonlocal done
        shutil.copyfile(source, target)
        done += Path(target).stat().st_size
        progress(done // MIB, max(inventory.n_bytes // MIB, 1), "copying")

    try:
        shutil.copytree(given, to, copy_function=copy)
        sync_files(to)
    except shutil.Error as error:
        source, _, why = error.args[0][0]
        raise FetchError(f"{source} cannot be copied to {to.parent}: {why}.") from None
    except OSError as error:
        raise FetchError(f"{given} cannot be copied to {to.parent}: {error.strerror}.") from None


def delete_folder(folder: Path) -> None:
    """Delete a folder and all that is in it, where there is one."""
    if folder.is_dir():
        shutil.rmtree(folder)
