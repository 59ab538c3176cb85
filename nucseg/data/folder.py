"""Any folder with `images/` and `masks/` whose files have the same names."""

from pathlib import Path

from nucseg.data.files import FileEntry, listed, some, subfolders
from nucseg.data.release import Release
from nucseg.data.sample import DataSet
from nucseg.errors import DataError

RELEASE = Release(
    name="folder",
    title="A folder of your own",
    contents="any images with masks, of any size",
    n_images=None,
    licence="yours",
    home="",
    download_gb=None,
    layout=(
        "images/<name>.png, the images (PNG, TIFF or JPEG), or images/<patient>/<name>.png",
        "masks/<name>.png, their instance maps or binary masks (PNG or TIFF), or masks/<patient>/<name>.png",
        "ignore/<name>.png, what to ignore (optional)",
    ),
    instructions=(
        "Put images and masks of the same names side by side; nothing is to be converted.",
        "Where several images come from one patient or slide, put them in sub-folders of that name.",
        "Name the folder that holds `images` and `masks` (--source DIR).",
    ),
)

_LAYOUT = "`images/` and `masks/` with files of the same names (PNG, TIFF; images also JPEG), optionally `ignore/`"
_BINARY_NOTE = (
    "A mask that holds only 0 and 1, or only 0 and 255, is read as binary: its connected components are the nuclei, "
    "so nuclei that touch count as one."
)
_UNGROUPED_NOTE = (
    "Every image is its own group, since they lie in no sub-folders: if several come from one patient or slide, put "
    "them in images/<patient>/ and masks/<patient>/, or scores will be too good."
)


def open_folder(source: Path) -> DataSet:
    """List a folder of images/, masks/ and optionally ignore/.

    A mask is an instance map or a binary mask (see `masks.instances_from`). Images in sub-folders, images/<group>/,
    take the sub-folder's name as group and stratum, and their masks lie in masks/<group>/; otherwise each image is
    a group and the only stratum is "all". Order: sub-folder, then file name, both as plain strings.
    Raises DataError if the layout is another, or masks are missing.
    """
    images = source / "images"
    if not (images.is_dir() and (source / "masks").is_dir()):
        found = list(subfolders(source))
        raise DataError(
            f"{source} holds {f'the folders {some(found)}' if found else 'no folders'}; expected are {_LAYOUT}."
        )
    groups = _groups(images)
    masks, ignored = (_named(source / kind) for kind in ("masks", "ignore"))
    entries = [
        entry
        for group, folder in groups.items()
        for entry in _entries(group, folder, masks.get(group, source / "masks" / group), ignored.get(group))
    ]
    without_mask = [str(entry.image_file.relative_to(images)) for entry in entries if not entry.instances_file.exists()]
    if without_mask:
        raise DataError(
            f"{len(without_mask)} of {len(entries)} images in {images} have no mask of the same name in "
            f"{source / 'masks'}: {some(without_mask)}. Add the masks, or move these images away."
        )
    return DataSet(RELEASE.name, str(source), tuple(entries), _notes(groups, masks, entries))


def _groups(images: Path) -> dict[str, Path]:
    """Name -> folder of the sub-folders; one empty name where images lie directly in images/."""
    groups, direct = subfolders(images), listed(images)
    if groups and direct:
        raise DataError(
            f"{images} holds {len(direct)} images beside the sub-folders {some(list(groups))}. Either all images lie "
            "in sub-folders, one for each patient or slide, or none: move the ones or the others."
        )
    empty = [group for group, folder in groups.items() if not listed(folder)]
    if empty:
        raise DataError(f"No images directly in {some(empty)} in {images}: {_LAYOUT}; sub-folders go one level deep.")
    return groups or {"": images}


def _named(folder: Path) -> dict[str, Path]:
    """The sub-folders by name, and with an empty name the folder itself."""
    return {"": folder, **subfolders(folder)} if folder.is_dir() else {}


def _entries(group: str, images: Path, masks: Path, ignored: Path | None) -> list[FileEntry]:
    mask_of, ignore_of = (listed(folder) if folder and folder.is_dir() else {} for folder in (masks, ignored))
    return [
        FileEntry(
            id=f"{group}/{name}" if group else name,
            group=group or name,
            stratum=group or "all",
            image_file=image,
            instances_file=mask_of.get(name, masks / f"{name}.png"),
            ignore_file=ignore_of.get(name),
        )
        for name, image in listed(images).items()
    ]


def _notes(groups: dict[str, Path], masks: dict[str, Path], entries: list[FileEntry]) -> tuple[str, ...]:
    notes = [_BINARY_NOTE] if "" not in groups else [_BINARY_NOTE, _UNGROUPED_NOTE]
    used = {entry.instances_file for entry in entries}
    spare = [file.name for group in groups for file in listed(masks[group]).values() if file not in used]
    if spare:
        notes.append(f"Masks without an image, not used: {len(spare)} ({some(spare)}).")
    return tuple(notes)
