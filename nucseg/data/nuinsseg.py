"""NuInsSeg as released: 31 organ folders of human and mouse tissue (Mahbod et al. 2024, Scientific Data 11:295)."""

from pathlib import Path

from nucseg.data.file_entries import FileEntry
from nucseg.data.files import image_files, some, subfolders
from nucseg.data.release import Release, count_note, labelled_part, release_folder, spare_note
from nucseg.data.sample import DataSet
from nucseg.errors import DataError

RELEASE = Release(
    name="nuinsseg",
    title="NuInsSeg (Mahbod et al. 2024)",
    contents="H&E, 31 human and mouse organs, 512 x 512 px",
    n_images=665,
    licence="CC BY 4.0 according to a public data list; check the record",
    home="https://zenodo.org/records/10518968",
    download_gb=1.6,
    layout=(
        "<organ>/tissue images/<name>.png, the images, with a folder for each organ such as `human bladder`",
        "<organ>/label masks modify/<name>.tif, their instance maps",
        "<organ>/vague areas/mask binary/<name>.png, what to ignore (for some images)",
    ),
    instructions=(
        "Run `nucseg fetch nuinsseg`, which does all of this. By hand: download NuInsSeg.zip from the Zenodo record "
        "10518968 (or the data set ipateam/nuinsseg from Kaggle).",
        "Unpack it; do not rename the folders, although some names are unusual.",
        "Give the folder that NuInsSeg.zip was unpacked to (--source DIR).",
    ),
)

_IMAGES = "tissue images"
_LABELS = "label masks modify"
_VAGUE = Path("vague areas", "mask binary")


def open_nuinsseg(source: Path) -> DataSet:
    """List NuInsSeg in `source`, or in a folder inside it.

    Order: organ folder, then file name, both as plain strings. An id is `<organ folder>/<file stem>`; group and stratum
    are the organ, because all its images come from one slide. Vague areas are ignored if they are given. The release
    itself may lack labels: up to one image in a hundred without a label is left out and named in a note. Raises
    DataError if the folder is not NuInsSeg, if an organ has no images, or if more images have no label.
    """
    root = release_folder(
        RELEASE, source, lambda folder: any(_has_images(organ) for organ in subfolders(folder).values())
    )
    organs = _organ_folders(root)
    entries = [entry for organ in organs for entry in _entries(organ)]
    where = f"`{root / '<organ>' / _LABELS / '<name>.tif'}`"
    labelled, notes = labelled_part(RELEASE, entries, lambda entry: entry.instances_file.exists(), where)
    notes += count_note(RELEASE, len(entries)) + spare_note(RELEASE, _spare_labels(organs)) + _vague_note(labelled)
    return DataSet(RELEASE.name, str(source), tuple(labelled), notes, n_left_out=len(entries) - len(labelled))


def _organ_folders(root: Path) -> list[Path]:
    organs = [
        folder for folder in subfolders(root).values() if (folder / _IMAGES).is_dir() or (folder / _LABELS).is_dir()
    ]
    empty = [organ.name for organ in organs if not _has_images(organ)]
    if empty:
        raise DataError(
            f"{len(empty)} of {len(organs)} organ folders in {root} have no PNG images in `<organ>/{_IMAGES}`: "
            f"{some(empty)}. Copy or unpack them again, or move these folders away."
        )
    return organs


def _has_images(folder: Path) -> bool:
    images = folder / _IMAGES
    return images.is_dir() and bool(image_files(images, (".png",)))


def _entries(organ: Path) -> list[FileEntry]:
    return [
        FileEntry(
            id=f"{organ.name}/{stem}",
            group=organ.name,
            stratum=organ.name,
            image_file=image,
            instances_file=organ / _LABELS / f"{image.stem}.tif",
            instance_map=True,
            ignore_file=vague if (vague := organ / _VAGUE / f"{image.stem}.png").exists() else None,
        )
        for stem, image in image_files(organ / _IMAGES, (".png",)).items()
    ]


def _spare_labels(organs: list[Path]) -> list[str]:
    folders = [organ for organ in organs if (organ / _LABELS).is_dir()]
    return [
        f"{organ.name}/{stem}"
        for organ in folders
        for stem in sorted(
            image_files(organ / _LABELS, (".tif",)).keys() - image_files(organ / _IMAGES, (".png",)).keys()
        )
    ]


def _vague_note(entries: list[FileEntry]) -> tuple[str, ...]:
    n_vague = sum(entry.ignore_file is not None for entry in entries)
    if n_vague == len(entries):
        return ()
    return (
        f"NuInsSeg: {n_vague} of {len(entries)} images have a mask of vague areas; in the others nothing is ignored.",
    )
