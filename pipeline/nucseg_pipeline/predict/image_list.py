"""The images to predict, and the names of their results."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from nucseg.data.files import found_in, image_files, skipped_files, skipped_note, some, subfolders
from nucseg.data.slides import SLIDE_SUFFIXES, choose_scene, scene_names
from nucseg.errors import ConfigError

_OME = ".ome"


def named_images(places: Sequence[Path]) -> dict[str, Path]:
    """Name -> file of all images: the given files, and the images in given folders, without subfolders.

    A name is the file's, without suffix. Files that differ only in their suffix keep it in their names.

    Raises:
        ConfigError: a path does not exist, a folder has no image, or two images would get the same name.
        DataError: a folder cannot be listed.
    """
    files = {(file.resolve(), file.name): file for place in places for file in _files(place)}.values()
    stems = Counter(_stem(file) for file in files)
    named: dict[str, Path] = {}
    for file in files:
        name = _stem(file) if stems[_stem(file)] == 1 else file.name
        if name in named:
            raise ConfigError(
                f"{named[name]} and {file} would both be written to a folder {name}. Predict them separately, each "
                "with its own --out."
            )
        named[name] = file
    return named


def named_scenes(name: str, file: Path, wanted: str | int | None, taken: set[str]) -> dict[str, str | int | None]:
    """Name of a result -> scene of a file, for all its scenes or the wanted one.

    A file with one scene gives its own name, otherwise the name of the scene is added to it. Names that results already
    have are in `taken`; the new ones are added.

    Raises:
        ConfigError: a name is taken.
        DataError: the file cannot be read, or has no such scene.
    """
    found = scene_names(file)
    if not found:
        return {name: wanted}
    chosen = found if wanted is None else [found[choose_scene(found, wanted, file)]]
    scenes: dict[str, str | int | None] = {f"{name}_{scene}": scene for scene in chosen}
    if twice := taken & set(scenes):
        raise ConfigError(
            f"A scene of {file} and another image would both be written to a folder {min(twice)}. Predict them "
            "separately, each with its own --out."
        )
    taken.update(scenes)
    return scenes


def skipped_in(places: Sequence[Path]) -> tuple[str, ...]:
    """Notes on the files in given folders that have no suffix of an image, and on subfolders."""
    folders = [place for place in places if place.is_dir()]
    inner = [str(path) for folder in folders for path in subfolders(folder).values()]
    note = (f"Subfolders are not searched: {some(inner)}. Name them too if they hold images.",) if inner else ()
    return (
        *skipped_note({str(folder): skipped_files(folder, SLIDE_SUFFIXES) for folder in folders}, SLIDE_SUFFIXES),
        *note,
    )


def _stem(file: Path) -> str:
    return file.stem.removesuffix(_OME) or file.stem


def _files(place: Path) -> list[Path]:
    if place.is_dir():
        files = list(image_files(place, SLIDE_SUFFIXES).values())
        if not files:
            raise ConfigError(
                f"There is no image in {place}: found {found_in(place)}, expected {', '.join(SLIDE_SUFFIXES)}. Name "
                "another folder or a file."
            )
        return files
    if not place.exists():
        raise ConfigError(f"There is no image {place}. Name an image or a folder of images.")
    return [place]
