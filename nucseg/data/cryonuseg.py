"""CryoNuSeg as released: frozen sections of ten human organs (Mahbod et al. 2021, Comput. Biol. Med. 132:104349)."""

import re
from pathlib import Path

from nucseg.data.file_entries import FileEntry
from nucseg.data.files import found_in, image_files, some, subfolders
from nucseg.data.release import Release, count_note, labelled_part, release_folder, spare_note
from nucseg.data.sample import DataSet
from nucseg.errors import DataError

RELEASE = Release(
    name="cryonuseg",
    title="CryoNuSeg (Mahbod et al. 2021)",
    contents="H&E frozen sections, 10 human organs, 512 x 512 px",
    n_images=30,
    licence="CC BY-NC-SA 4.0 (no commercial use)",
    home="https://www.kaggle.com/datasets/ipateam/segmentation-of-nuclei-in-cryosectioned-he-images",
    download_gb=None,
    layout=(
        "tissue images/Human_<Organ>_<NN>.tif, the images",
        "Annotator 1 (biologist)/label masks modify/Human_<Organ>_<NN>.tif, their instance maps (old releases: "
        "label masks modify/ next to the images)",
    ),
    instructions=(
        "Download the data set ipateam/segmentation-of-nuclei-in-cryosectioned-he-images from Kaggle (free account).",
        "Run `nucseg fetch cryonuseg --from FILE` on the .zip, which does the rest. By hand: unpack it; an "
        "annotator's folder may be inside another one of the same name.",
        "Give the folder that contains `tissue images` (--source DIR).",
    ),
)

_IMAGES = "tissue images"
_LABELS = "label masks modify"
_ANNOTATOR = "Annotator 1 (biologist)"
_NAME = re.compile(r"Human_([A-Za-z]+)_\d+")


def open_cryonuseg(source: Path) -> DataSet:
    """List CryoNuSeg in `source`, or in a folder inside it.

    Order: file name as a plain string. An id is the file stem, and the organ in it is the stratum; each image is its
    own group, because it comes from its own slide. Instances are those of the first round of annotator 1, a biologist;
    old releases have no others. Up to one image in a hundred may lack a label, as in NuInsSeg. Raises DataError if the
    folder is not CryoNuSeg, if labels are missing or only those of other annotators exist, and for other file names.
    """
    root = release_folder(RELEASE, source, _holds_images_folder)
    labels, annotator_note = _labels_folder(root)
    entries = _entries(root, labels)
    where = f"`{labels / '<name>.tif'}`"
    labelled, notes = labelled_part(RELEASE, entries, lambda entry: entry.instances_file.exists(), where)
    spare = sorted(image_files(labels, (".tif",)).keys() - _images(root).keys())
    notes = (annotator_note, *notes, *count_note(RELEASE, len(entries)), *spare_note(RELEASE, spare))
    return DataSet(RELEASE.name, str(source), tuple(labelled), notes, n_left_out=len(entries) - len(labelled))


def _holds_images_folder(folder: Path) -> bool:
    images = folder / _IMAGES
    return images.is_dir() and not image_files(images, (".png",))  # a folder with PNG images is an organ of NuInsSeg


def _images(root: Path) -> dict[str, Path]:
    images = image_files(root / _IMAGES, (".tif",))
    if not images:
        raise DataError(
            f"No TIFF images in {root / _IMAGES}, which holds {found_in(root / _IMAGES)}. Copy or unpack it again."
        )
    return images


def _labels_folder(root: Path) -> tuple[Path, str]:
    """The folder of the labels, and a note on their annotator."""
    annotators = [folder.name for folder in subfolders(root).values() if folder.name.startswith("Annotator")]
    if not annotators and (root / _LABELS).is_dir():
        note = (
            f"CryoNuSeg: labels from `{_LABELS}` next to the images, as in old releases; their annotator is not given."
        )
        return root / _LABELS, note
    for folder in (root / _ANNOTATOR, root / _ANNOTATOR / _ANNOTATOR):
        if (folder / _LABELS).is_dir():
            return folder / _LABELS, f"CryoNuSeg: labels of {_ANNOTATOR}, first round; those of others are not used."
    raise DataError(
        f"{root / _ANNOTATOR / _LABELS} does not exist. Labels are expected there, or in another folder {_ANNOTATOR} "
        f"in between. {_found(root, annotators)} Copy or unpack the folder of annotator 1 again."
    )


def _found(root: Path, annotators: list[str]) -> str:
    if _ANNOTATOR in annotators:
        return f"{root / _ANNOTATOR} holds {found_in(root / _ANNOTATOR)}."
    if annotators:
        return f"There are only labels of other annotators, {some(annotators)}, which are not used instead."
    return f"{root} holds {found_in(root)}."


def _entries(root: Path, labels: Path) -> list[FileEntry]:
    images = _images(root)
    misnamed = [image.name for stem, image in images.items() if not _NAME.fullmatch(stem)]
    if misnamed:
        raise DataError(
            f"{len(misnamed)} of {len(images)} images in {root / _IMAGES} are not named Human_<Organ>_<number>.tif: "
            f"{some(misnamed)}. The organ is read from the name: restore the original names, or move these away."
        )
    return [
        FileEntry(
            id=stem,
            group=stem,
            stratum=stem.split("_")[1],
            image_file=image,
            instances_file=labels / f"{stem}.tif",
            instance_map=True,
        )
        for stem, image in images.items()
    ]
