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
        found = [child.name for child in subfolders(source)]
        raise DataError(
            f"{source} holds {f'the folders {some(found)}' if found else 'no folders'}; expected are {_LAYOUT}."
        )
    groups = _groups(images)
    entries = [entry for group in groups for entry in _entries(source, group)]
    without_mask = [str(entry.image_file.relative_to(images)) for entry in entries if not entry.instances_file.exists()]
    if without_mask:
        raise DataError(
            f"{len(without_mask)} of {len(entries)} images in {images} have no mask of the same name in "
            f"{source / 'masks'}: {some(without_mask)}. Add the masks, or move these images away."
        )
    return DataSet(RELEASE.name, str(source), tuple(entries), _notes(source, groups, entries))


def _groups(images: Path) -> list[str]:
    """Names of the sub-folders, or one empty name where images lie directly in images/."""
    groups, direct = [child.name for child in subfolders(images)], listed(images)
    if groups and direct:
        raise DataError(
            f"{images} holds {len(direct)} images beside the sub-folders {some(groups)}. Either all images lie in "
            "sub-folders, one for each patient or slide, or none: move the ones or the others."
        )
    empty = [group for group in groups if not listed(images / group)]
    if empty:
        raise DataError(f"No images directly in {some(empty)} in {images}: {_LAYOUT}; sub-folders go one level deep.")
    return groups or [""]


def _entries(source: Path, group: str) -> list[FileEntry]:
    masks, ignored = (
        listed(source / kind / group) if (source / kind / group).is_dir() else {} for kind in ("masks", "ignore")
    )
    return [
        FileEntry(
            id=f"{group}/{stem}" if group else stem,
            group=group or stem,
            stratum=group or "all",
            image_file=image,
            instances_file=masks.get(stem, source / "masks" / group / f"{stem}.png"),
            ignore_file=ignored.get(stem),
        )
        for stem, image in listed(source / "images" / group).items()
    ]


def _notes(source: Path, groups: list[str], entries: list[FileEntry]) -> tuple[str, ...]:
    notes = [_BINARY_NOTE] if groups != [""] else [_BINARY_NOTE, _UNGROUPED_NOTE]
    used = {entry.instances_file for entry in entries}
    spare = [file.name for group in groups for file in listed(source / "masks" / group).values() if file not in used]
    if spare:
        notes.append(f"Masks without an image, not used: {len(spare)} ({some(spare)}).")
    return tuple(notes)
