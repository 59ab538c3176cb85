"""The H&E part of the 2018 Data Science Bowl, as released (BBBC038; Caicedo et al. 2019, Nature Methods 16:1247)."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nucseg.data.file_entries import ImageFileEntry
from nucseg.data.files import image_files, some, subfolders
from nucseg.data.masks import Labels
from nucseg.data.release import Release, count_note, folders_with, labelled_part, release_folder
from nucseg.data.sample import DataSet
from nucseg.errors import DataError

RELEASE = Release(
    name="dsb2018",
    title="Data Science Bowl 2018 (BBBC038; Caicedo et al. 2019)",
    contents="many kinds of nuclei, of which only the colour images (H&E) are used, mostly 320 x 256 px",
    n_images=670,
    licence="CC0",
    home="https://bbbc.broadinstitute.org/BBBC038",
    download_gb=0.08,
    layout=("<id>/images/<id>.png, one image per folder", "<id>/masks/*.png, one mask per nucleus"),
    instructions=(
        "Run `nucseg fetch dsb2018`, which does all of this. By hand: download stage1_train.zip from BBBC038; "
        "stage1_test.zip has no masks and cannot be used.",
        "Unpack it into a new folder, stage1_train.",
        "Give the folder that stage1_train.zip was unpacked to (--source DIR).",
    ),
)


@dataclass(frozen=True, kw_only=True)
class NucleusFilesEntry(ImageFileEntry):
    """An image file and one mask file per nucleus."""

    nucleus_files: tuple[Path, ...] = field(repr=False)
    """In the order in which nuclei are numbered from 1; everything but 0 is the nucleus."""

    def _mask_files(self) -> tuple[Path, ...]:
        return self.nucleus_files

    def _combined(self, contents: Sequence[bytes], size: tuple[int, int]) -> Labels:
        """Combine the nuclei; an empty file is skipped and takes no number.

        According to the release, nuclei do not overlap. If two do, the first keeps the pixel; a nucleus that would lose
        all its pixels is a DataError.
        """
        instances = np.zeros(size, np.int32)
        drawn: list[Path] = []
        for file, content in zip(self.nucleus_files, contents, strict=True):
            nucleus = _nucleus(self._decode_mask(content, file, size), file)
            free = nucleus & (instances == 0)
            if free.any():
                drawn.append(file)
                instances[free] = len(drawn)
            elif nucleus.any():
                covering = [drawn[number - 1].name for number in np.unique(instances[nucleus])]
                raise DataError(
                    f"{file} is a nucleus of {np.count_nonzero(nucleus)} pixels that others cover completely: "
                    f"{some(covering)}. Nuclei of this data set do not overlap: move the wrong file away."
                )
        return Labels(instances=instances, ignore=np.zeros(size, np.bool_))


def open_dsb2018(source: Path) -> DataSet:
    """List the H&E images of stage1_train in `source`, or in a folder inside it.

    Order: id as a plain string. An id is the name of the image's folder; each image is its own group, since the release
    does not give the slides; the only stratum is "all". Nuclei are numbered in plain string order of their files. Grey
    images (fluorescence and others) are left out and counted in a note. To find them, all images are decoded once;
    damaged images stay in and raise an error when they are read. Up to one image in a hundred may lack masks, as in
    NuInsSeg. Raises DataError if the folder is not this data set, if images or masks are missing (stage1_test has no
    masks), or if all images are grey.
    """
    holds = _holds_labelled if folders_with(source, _holds_labelled) else _holds_images
    root = release_folder(RELEASE, source, holds)
    entries = _entries(root)
    where = f"`{root / '<id>' / 'masks'}` (stage1_test has none; use stage1_train)"
    labelled, notes = labelled_part(RELEASE, entries, lambda entry: bool(entry.nucleus_files), where)
    coloured = _coloured(labelled)
    if not coloured:
        raise DataError(
            f"All {len(labelled)} images in {root} are grey, but only colour images (H&E) are used. Use the complete "
            "stage1_train."
        )
    if n_grey := len(labelled) - len(coloured):
        notes += (f"Data Science Bowl 2018: {n_grey} grey images left out, which are not H&E.",)
    notes += count_note(RELEASE, len(entries))
    return DataSet(RELEASE.name, str(source), tuple(coloured), notes, n_left_out=len(entries) - len(coloured))


def _image_file(folder: Path) -> Path:
    return folder / "images" / f"{folder.name}.png"


def _nucleus_files(folder: Path) -> tuple[Path, ...]:
    masks = folder / "masks"
    return tuple(image_files(masks, (".png",)).values()) if masks.is_dir() else ()


def _holds_images(folder: Path) -> bool:
    return any(_image_file(child).exists() for child in subfolders(folder).values())


def _holds_labelled(folder: Path) -> bool:
    return any(_image_file(child).exists() and _nucleus_files(child) for child in subfolders(folder).values())


def _entries(root: Path) -> list[NucleusFilesEntry]:
    folders = subfolders(root)
    without_image = [name for name, folder in folders.items() if not _image_file(folder).exists()]
    if without_image:
        raise DataError(
            f"{len(without_image)} of {len(folders)} folders in {root} have no image `<id>/images/<id>.png`: "
            f"{some(without_image)}. Copy or unpack them again, or move these folders away."
        )
    return [
        NucleusFilesEntry(
            id=name, group=name, stratum="all", image_file=_image_file(folder), nucleus_files=_nucleus_files(folder)
        )
        for name, folder in folders.items()
    ]


def _coloured(entries: list[NucleusFilesEntry]) -> list[NucleusFilesEntry]:
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:  # decoding releases the GIL
        grey = pool.map(_is_grey, entries)
        return [entry for entry, left_out in zip(entries, grey, strict=True) if not left_out]


def _is_grey(entry: NucleusFilesEntry) -> bool:
    try:
        image, _ = entry.read_image()
    except DataError:
        return False
    return bool((image == image[..., :1]).all())


def _nucleus(mask: npt.NDArray[Any], file: Path) -> npt.NDArray[np.bool_]:
    nucleus: npt.NDArray[np.bool_] = mask != 0
    values = mask[nucleus]
    if values.size and values.min() != values.max():
        raise DataError(
            f"{file} has the values {some([str(value) for value in np.unique(mask)])}; expected 0 and one other, "
            "since a file is one nucleus. For instance maps, use the data set `folder`."
        )
    return nucleus
