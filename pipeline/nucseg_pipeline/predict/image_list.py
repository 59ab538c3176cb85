"""The images to predict, and the names of their results."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nucseg.data.files import found_in, image_files
from nucseg.data.slides import SLIDE_SUFFIXES
from nucseg.errors import ConfigError

_OME = ".ome"


def named_images(places: Sequence[Path]) -> dict[str, Path]:
    """Name -> file of all images: the given files, and the images in given folders, without subfolders.

    Raises:
        ConfigError: a path does not exist, a folder has no image, or two images would get the same name.
        DataError: a folder cannot be listed.
    """
    named: dict[str, Path] = {}
    for file in (file for place in places for file in _files(place)):
        name = file.stem.removesuffix(_OME) or file.stem
        if name in named and named[name].resolve() != file.resolve():
            raise ConfigError(
                f"{named[name]} and {file} would both be written to a folder {name}. Predict them separately, each "
                "with its own --out."
            )
        named[name] = file
    return named


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
