"""A folder of your own: `images/` and `masks/` with files of the same names."""

from pathlib import Path

from nucseg.data.files import FileEntry, image_files, some, subfolders
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
        "Put images and masks of the same names in two folders; no conversion is needed.",
        "If several images come from one patient or slide, put them in a subfolder of that name.",
        "Give the folder that contains `images` and `masks` (--source DIR).",
    ),
)

_LAYOUT = "`images/` and `masks/` with files of the same names (PNG, TIFF; images also JPEG), optionally `ignore/`"
_BINARY_NOTE = (
    "A mask with only the values 0 and 1, or 0 and 255, is read as binary: its connected components are the nuclei, so "
    "touching nuclei count as one."
)
_UNGROUPED_NOTE = (
    "Every image is its own group, since there are no subfolders. If several come from one patient or slide, put them "
    "in images/<patient>/ and masks/<patient>/, or scores will be too optimistic."
)


def open_folder(source: Path) -> DataSet:
    """List a folder of images/, masks/ and optionally ignore/.

    A mask is an instance map or a binary mask (see `masks.instances_from`). The subfolder of images in images/<group>/,
    with their masks in masks/<group>/, is their group and stratum; otherwise each image is its own group and the only
    stratum is "all". Order: subfolder, then file name, both as plain strings. Raises DataError for another layout or
    missing masks.
    """
    images = source / "images"
    if not (images.is_dir() and (source / "masks").is_dir()):
        found = list(subfolders(source))
        raise DataError(
            f"{source} holds {f'the folders {some(found)}' if found else 'no folders'}; expected {_LAYOUT}."
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
    """Name -> subfolder of images/, or an empty name -> images/ if it has no subfolders."""
    groups, direct = subfolders(images), image_files(images)
    if groups and direct:
        raise DataError(
            f"{images} holds {len(direct)} images and also the subfolders {some(list(groups))}. Put all images in "
            "subfolders, one for each patient or slide, or none."
        )
    empty = [group for group, folder in groups.items() if not image_files(folder)]
    if empty:
        raise DataError(
            f"No images directly in {some(empty)} in {images}. Expected {_LAYOUT}; subfolders may be one level deep."
        )
    return groups or {"": images}


def _named(folder: Path) -> dict[str, Path]:
    """Name -> subfolder, and an empty name -> the folder itself."""
    return {"": folder, **subfolders(folder)} if folder.is_dir() else {}


def _entries(group: str, images: Path, masks: Path, ignored: Path | None) -> list[FileEntry]:
    mask_of, ignore_of = (image_files(folder) if folder and folder.is_dir() else {} for folder in (masks, ignored))
    return [
        FileEntry(
            id=f"{group}/{name}" if group else name,
            group=group or name,
            stratum=group or "all",
            image_file=image,
            instances_file=mask_of.get(name, masks / f"{name}.png"),
            ignore_file=ignore_of.get(name),
        )
        for name, image in image_files(images).items()
    ]


def _notes(groups: dict[str, Path], masks: dict[str, Path], entries: list[FileEntry]) -> tuple[str, ...]:
    notes = [_BINARY_NOTE] if "" not in groups else [_BINARY_NOTE, _UNGROUPED_NOTE]
    used = {entry.instances_file for entry in entries}
    spare = [file.name for group in groups for file in image_files(masks[group]).values() if file not in used]
    if spare:
        notes.append(f"Masks without an image, not used: {len(spare)} ({some(spare)}).")
    return tuple(notes)
