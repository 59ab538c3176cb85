"""A folder of your own: `images/` and `masks/` with files of the same names."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nucseg.data.coco_files import find_parts
from nucseg.data.file_entries import CocoEntry, FileEntry
from nucseg.data.files import (
    IMAGE_SUFFIXES,
    MASK_SUFFIXES,
    found_in,
    full_name,
    image_files,
    mask_of,
    masks_by_name,
    skipped_files,
    skipped_note,
    some,
    subfolders,
)
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
        "images/<name>.png, the images (PNG, TIFF, JPEG, BMP or WebP), or images/<patient>/<name>.png",
        "masks/<name>.png, their instance maps or binary masks (without lossy compression), or masks/<patient>/...",
        "masks/<name>.geojson instead, outlines as QuPath exports them, or COCO: masks/<name>.json, masks.json",
        "ignore/<name>.png, what to ignore (optional)",
    ),
    instructions=(
        "Put images and masks of the same names in two folders; no conversion is needed.",
        "If several images come from one patient or slide, put them in a subfolder of that name.",
        "Give the folder that contains `images` and `masks` (--source DIR).",
    ),
)

_LAYOUT = (
    "`images/` and `masks/` with files of the same names (PNG, TIFF, BMP, WebP; images also JPEG, masks also GeoJSON "
    "or COCO JSON), or `masks.json` instead of `masks/`, optionally `ignore/`"
)
_COCO = "masks.json"
_UNGROUPED_NOTE = (
    "Every image is its own group, since there are no subfolders. If several come from one patient or slide, put them "
    "in images/<patient>/ and masks/<patient>/, or scores will be too optimistic."
)


@dataclass(frozen=True)
class _Image:
    """An image, and the masks of its name."""

    group: str
    name: str
    file: Path
    mask: Path | None
    ignore: Path | None

    def entry(self, shared: tuple[Path, bytes] | None) -> FileEntry | None:
        """The image with its mask, or with its part of a COCO file; None if it has neither."""
        if self.mask and shared:
            raise DataError(
                f"{self.file} has two masks: {self.mask}, and a part of {shared[0]}. Move one of them away."
            )
        known: dict[str, Any] = {
            "id": f"{self.group}/{self.name}" if self.group else self.name,
            "group": self.group or self.name,
            "stratum": self.group or "all",
            "image_file": self.file,
            "ignore_file": self.ignore,
        }
        if shared:
            return CocoEntry(**known, instances_file=shared[0], part=shared[1])
        return FileEntry(**known, instances_file=self.mask) if self.mask else None


def open_folder(source: Path) -> DataSet:
    """List a folder of images/, masks/ and optionally ignore/.

    A mask is an instance map or a binary mask (see `masks.instances_from`), or outlines (see `outlines`); a COCO file
    of several images is `masks.json`, or any in masks/ that is not named like an image. The subfolder of images in
    images/<group>/, with their masks in masks/<group>/, is their group and stratum; otherwise each image is its own
    group and the only stratum is "all". Order: subfolder, then file name, both as plain strings.

    The mask of `a.png` is called `a` or `a.png`, with any suffix. If there is an `a.jpg`, too, both images keep the
    suffix in their names, and only masks like `a.png.tif` and `a.jpg.tif`, or of exactly the image's name, are theirs.

    Raises DataError for another layout, missing masks, and two masks for an image.
    """
    images = source / "images"
    if not (images.is_dir() and ((source / "masks").is_dir() or (source / _COCO).is_file())):
        found = list(subfolders(source))
        raise DataError(
            f"{source} holds {f'the folders {some(found)}' if found else 'no folders'}; expected {_LAYOUT}."
        )
    groups = _groups(images)
    masks, ignored = _masks(source / "masks", groups), _masks(source / "ignore", groups)
    listed = [
        _Image(group, name, file, mask_of(name, file, masks[group]), mask_of(name, file, ignored[group]))
        for group, folder in groups.items()
        for name, file in image_files(folder).items()
    ]
    _check_masks_used_once(listed)
    spare = _spare(masks, (image.mask for image in listed))
    json_files = [file for file in spare if file.suffix.lower() == ".json" and file.parent.name in ("masks", *groups)]
    json_files += [source / _COCO] if (source / _COCO).is_file() else []
    shared = find_parts(json_files, [image.file for image in listed])
    entries = {image.file: entry for image in listed if (entry := image.entry(shared.parts.get(image.file)))}
    _check_all_have_masks([image for image in listed if image.file not in entries], len(listed), source)
    notes = [] if "" not in groups else [_UNGROUPED_NOTE]
    notes += _unused("Masks", [file for file in spare if file not in shared.files], source / "masks")
    notes += _unused("Masks of ignored areas", _spare(ignored, (image.ignore for image in listed)), source / "ignore")
    return DataSet(
        RELEASE.name, str(source), tuple(entries.values()), (*notes, *shared.notes, *_skipped(source, groups))
    )


def _groups(images: Path) -> dict[str, Path]:
    """Name -> subfolder of images/, or an empty name -> images/ if it has no subfolders."""
    groups, direct = subfolders(images), image_files(images)
    if groups and direct:
        raise DataError(
            f"{images} holds {len(direct)} images and also the subfolders {some(list(groups))}. Put all images in "
            "subfolders, one for each patient or slide, or none."
        )
    if not groups and not direct:
        raise DataError(f"The data set has no images in {images}, which holds {found_in(images)}. Expected {_LAYOUT}.")
    empty = [group for group, folder in groups.items() if not image_files(folder)]
    if empty:
        raise DataError(
            f"No images directly in {some(empty)} in {images}. Expected {_LAYOUT}; subfolders may be one level deep."
        )
    return groups or {"": images}


def _masks(folder: Path, groups: Iterable[str]) -> dict[str, dict[str, list[Path]]]:
    """Subfolder, or an empty name for the folder itself -> its masks by name; none for a group without a subfolder."""
    folders = {"": folder, **subfolders(folder)} if folder.is_dir() else {}
    return {group: {} for group in groups} | {name: masks_by_name(path) for name, path in folders.items()}


def _spare(masks: Mapping[str, Mapping[str, Sequence[Path]]], used: Iterable[Path | None]) -> list[Path]:
    """The masks that are named like no image."""
    taken = set(used)
    files = dict.fromkeys(file for named in masks.values() for found in named.values() for file in found)
    return [file for file in files if file not in taken]


def _unused(what: str, files: Sequence[Path], folder: Path) -> list[str]:
    names = some([str(file.relative_to(folder)) for file in files])
    return [f"{what} without an image, not used: {len(files)} ({names})."] if files else []


def _check_masks_used_once(listed: Sequence[_Image]) -> None:
    counts = Counter(file for image in listed for file in (image.mask, image.ignore) if file)
    for mask in (file for file, count in counts.items() if count > 1):
        named = [image.file.name for image in listed if mask in (image.mask, image.ignore)]
        raise DataError(f"{mask} could be the mask of {some(named)}. Rename these images and their masks.")


def _check_all_have_masks(missing: Sequence[_Image], n_images: int, source: Path) -> None:
    if not missing:
        return
    with_suffix = [image.name for image in missing if image.name == full_name(image.file)]
    advice = f" Images that differ only in their suffix need masks like {with_suffix[0]}.png." if with_suffix else ""
    names = some([str(image.file.relative_to(source / "images")) for image in missing])
    masks = source / "masks"
    holds = (
        f" It holds {found_in(masks)}; read are {some(MASK_SUFFIXES, len(MASK_SUFFIXES))}." if masks.is_dir() else ""
    )
    raise DataError(
        f"{len(missing)} of {n_images} images in {source / 'images'} have no mask of the same name in {masks}: {names}."
        f"{holds}{advice} Add or rename the masks, or move these images away."
    )


def _skipped(source: Path, groups: Iterable[str]) -> tuple[str, ...]:
    def skipped(kind: str, suffixes: Sequence[str]) -> list[str]:
        folders = {source / kind, *(source / kind / group for group in groups)}
        return [name for folder in folders if folder.is_dir() for name in skipped_files(folder, suffixes)]

    return (
        *skipped_note({"images": skipped("images", IMAGE_SUFFIXES)}, IMAGE_SUFFIXES),
        *skipped_note({kind: skipped(kind, MASK_SUFFIXES) for kind in ("masks", "ignore")}, MASK_SUFFIXES),
    )
