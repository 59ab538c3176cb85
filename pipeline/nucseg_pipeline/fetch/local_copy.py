"""Copy what the user has downloaded (`--from`) into the staging folder; the original is left as it is."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from nucseg_pipeline.fetch.catalogue import Item
from nucseg_pipeline.fetch.errors import FetchError, RefusedError
from nucseg_pipeline.fetch.staging import check_space
from nucseg_pipeline.fetch.verify import folder_size, list_images

if TYPE_CHECKING:
    from nucseg_pipeline.progress import Progress

_MIB = 1 << 20


def copy_file(source: Path, to: Path) -> None:
    """Copy one file. Raises FetchError if it is no file, or cannot be copied."""
    if not source.is_file():
        raise FetchError(f"{source} is not a file. Name the file that you have downloaded (--from).")
    check_space(to.parent, source.stat().st_size, str(source))
    try:
        shutil.copyfile(source, to)
    except OSError as error:
        raise FetchError(f"{source} cannot be copied to {to}: {error.strerror}.") from None


def copy_folder(item: Item, source: Path, to: Path, progress: Progress) -> None:
    """Copy the folder of a data set, following links; `progress` counts MiB.

    Raises:
        RefusedError: the folder does not hold that data set, or much more than that.
        FetchError: it cannot be copied.
    """
    list_images(item, source, str(source))
    n_bytes = folder_size(source)[1]
    if n_bytes > item.max_unpacked_bytes:
        raise RefusedError(
            f"{source} holds {n_bytes} bytes, but {item.title} has at most {item.max_unpacked_bytes}. Name the folder "
            "that holds only the data set (--from)."
        )
    check_space(to.parent, n_bytes, str(source))
    done = 0

    def copy(file: str, target: str) -> None:
        nonlocal done
        shutil.copyfile(file, target)
        done += Path(target).stat().st_size
        progress(done // _MIB, max(n_bytes // _MIB, 1), "copying")

    try:
        shutil.copytree(source, to, copy_function=copy)
    except shutil.Error as error:
        file, _, reason = error.args[0][0]
        raise FetchError(f"{file} cannot be copied to {to.parent}: {reason}.") from None
    except OSError as error:
        raise FetchError(f"{source} cannot be copied to {to.parent}: {error.strerror}.") from None
