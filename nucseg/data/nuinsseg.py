"""NuInsSeg as released: 31 organ folders of human and mouse tissue (Mahbod et al. 2024, Scientific Data 11:295)."""

from pathlib import Path

from nucseg.data.files import FileEntry, listed, some, subfolders
from nucseg.data.sample import DataSet
from nucseg.errors import DataError

N_RELEASED = 665
"""Images in the release."""

MOST_UNLABELLED = 0.01
"""Share of images that may lack a label before the folder counts as half copied."""

_IMAGES = "tissue images"
_LABELS = "label masks modify"
_VAGUE = Path("vague areas", "mask binary")


def open_nuinsseg(source: Path) -> DataSet:
    """List NuInsSeg in `source`, or in the one folder inside it that holds the release.

    Order: organ folder, then file name, both as plain strings. An id is `<organ folder>/<file stem>`; group and
    stratum are the organ, because all its images come from one slide. Vague areas are ignored where they are given.
    The release itself may lack a label: up to one image in a hundred is left out for that, and named in a note.
    Raises DataError if the folder is not NuInsSeg, or more images than that have no label.
    """
    organs = _organ_folders(source)
    entries = [entry for organ in organs for entry in _entries(organ)]
    missing = [entry.id for entry in entries if not entry.instances_file.exists()]
    if len(missing) > MOST_UNLABELLED * len(entries):
        raise DataError(
            f"{len(missing)} of {len(entries)} NuInsSeg images have no label in `<organ>/{_LABELS}/<name>.tif`: "
            f"{some(missing)}. Unpack the release again, or move these images away."
        )
    labelled = [entry for entry in entries if entry.id not in set(missing)]
    return DataSet("nuinsseg", str(source), tuple(labelled), _notes(labelled, missing))


def _organ_folders(source: Path) -> list[Path]:
    for root in (source, *subfolders(source)):
        organs = [folder for folder in subfolders(root) if _has_images(folder)]
        if organs:
            return organs
    found = [child.name for child in subfolders(source)]
    raise DataError(
        f"{source} is not NuInsSeg: a folder for each organ expected, such as `human bladder`, with PNG images in "
        f"`{_IMAGES}` inside; found {f'the folders {some(found)}' if found else 'no folders'}. "
        "Name the folder that NuInsSeg.zip was unpacked to."
    )


def _has_images(folder: Path) -> bool:
    images = folder / _IMAGES
    return images.is_dir() and bool(listed(images, (".png",)))


def _entries(organ: Path) -> list[FileEntry]:
    return [
        FileEntry(
            id=f"{organ.name}/{stem}",
            group=organ.name,
            stratum=organ.name,
            image_file=image,
            instances_file=organ / _LABELS / f"{stem}.tif",
            ignore_file=vague if (vague := organ / _VAGUE / f"{stem}.png").exists() else None,
        )
        for stem, image in listed(organ / _IMAGES, (".png",)).items()
    ]


def _notes(entries: list[FileEntry], missing: list[str]) -> tuple[str, ...]:
    notes = [f"NuInsSeg: left out for want of a label: {some(missing)}."] if missing else []
    if len(entries) != N_RELEASED:
        notes.append(f"NuInsSeg: {len(entries)} of the {N_RELEASED} released images.")
    n_vague = sum(entry.ignore_file is not None for entry in entries)
    if n_vague < len(entries):
        notes.append(
            f"NuInsSeg: {n_vague} of {len(entries)} images have a mask of vague areas; the others ignore nothing."
        )
    return tuple(notes)
