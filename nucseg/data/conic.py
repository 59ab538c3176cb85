"""CoNIC as released: patches of colon tissue in two NumPy files (Graham et al. 2021, arXiv:2111.14485)."""

import csv
import re
from collections import Counter
from pathlib import Path

from nucseg.data.files import found_in, some
from nucseg.data.patches import PatchEntry, image_stack, label_stack
from nucseg.data.release import Release, count_note, release_folder
from nucseg.data.sample import DataSet
from nucseg.errors import DataError

RELEASE = Release(
    name="conic",
    title="CoNIC (Graham et al. 2021)",
    contents="H&E, human colon, 20x, 256 x 256 px",
    n_images=4981,
    licence="CC BY-NC-SA 4.0 (no commercial use)",
    home="https://conic-challenge.grand-challenge.org/",
    download_gb=None,
    layout=(
        "images.npy, the patches, (4981, 256, 256, 3) of uint8 (1.0 GB)",
        "labels.npy, instance and class of each pixel, (4981, 256, 256, 2) of uint16 (1.3 GB)",
        "patch_info.csv, the names of the patches, <cohort>_<source>-<index>, in the column patch_info",
    ),
    instructions=(
        "Join the CoNIC challenge on grand-challenge.org (free account) and download its training patches.",
        "Run `nucseg fetch conic --from FOLDER` on the download, which checks and installs it. By hand: put "
        "images.npy, labels.npy and patch_info.csv (2.3 GB) in one folder; no conversion is needed.",
        "Give the folder of the three files (--source DIR).",
    ),
)

_MPP = 0.5
"""Patches are at 20x."""

_IMAGES, _LABELS, _INFO = "images.npy", "labels.npy", "patch_info.csv"
_FILES = (_IMAGES, _LABELS, _INFO)
_COLUMN = "patch_info"
_NAME = re.compile(r"[^\W_]+_[\w .]+-\d+")


def open_conic(source: Path) -> DataSet:
    """List CoNIC in `source`, or in a folder inside it.

    Order: that of the patches in the files. An id is the patch's name in patch_info.csv. The group is the source image
    (the part before the first "-"), because patches of one image are adjacent; the stratum is the cohort (the part
    before the first "_"). Classes and counts.csv are not used. Raises DataError if a file is missing or invalid, if
    the numbers of patches differ between files, and for malformed or repeated names.
    """
    root = release_folder(RELEASE, source, lambda folder: any((folder / name).is_file() for name in _FILES))
    missing = [name for name in _FILES if not (root / name).is_file()]
    if missing:
        raise DataError(
            f"{some(missing)} missing in {root}, which holds {found_in(root)}. All three files are needed: copy "
            f"{' and '.join(missing)} there."
        )
    images, labels = image_stack(root / _IMAGES), label_stack(root / _LABELS)
    names = patch_names(root / _INFO)
    if not len(images) == len(labels) == len(names):
        raise DataError(
            f"The files in {root} do not match: {len(images)} patches in {_IMAGES}, {len(labels)} in {_LABELS}, "
            f"{len(names)} names in {_INFO}. Copy all three from the same release."
        )
    entries = tuple(_entry(root, index, name) for index, name in enumerate(names))
    return DataSet(RELEASE.name, str(source), entries, count_note(RELEASE, len(entries)))


def _entry(root: Path, index: int, name: str) -> PatchEntry:
    group = name.partition("-")[0]
    return PatchEntry(
        id=name,
        group=group,
        stratum=group.partition("_")[0],
        mpp=_MPP,
        images_file=root / _IMAGES,
        labels_file=root / _LABELS,
        index=index,
    )


def patch_names(file: Path) -> list[str]:
    """Read the names of the patches in patch_info.csv. Raises DataError for anything else, and repeated names."""
    try:
        with file.open(newline="", encoding="utf-8-sig") as stream:
            rows = csv.DictReader(stream)
            columns = rows.fieldnames or []
            names = [row[_COLUMN] or "" for row in rows] if _COLUMN in columns else []
    except OSError as cause:
        raise DataError(f"{file} cannot be read: {cause.strerror}.") from cause
    except (csv.Error, UnicodeDecodeError) as cause:
        raise DataError(f"{file} is not a CSV table in UTF-8: {cause}. Copy it from the release.") from cause
    if _COLUMN not in columns:
        found = f"the columns {some(columns)}" if columns else "no columns"
        raise DataError(f"{file} has {found}; expected a column {_COLUMN}. Copy it from the release.")
    malformed = [repr(name) for name in names if not _NAME.fullmatch(name)]
    if malformed:
        raise DataError(
            f"{len(malformed)} of {len(names)} names in {file} are not of the form <cohort>_<source>-<index>, such as "
            f"consep_1-0000: {some(malformed)}. Groups and strata are read from names: copy it from the release."
        )
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise DataError(f"{file} repeats {len(repeated)} names: {some(repeated)}. Copy it from the release.")
    return names
