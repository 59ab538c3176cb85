"""The files that a slide consists of: in some formats, the file that is opened refers to others."""

from pathlib import Path

from nucseg.paths import opened_file

_INDEX_BYTES = 1 << 20
"""Largest index file of Hamamatsu that is read; they have about 1 kB."""


def files_of(file: Path) -> tuple[Path, ...]:
    """The file itself, then, in a fixed order, those that a reader of its format reads in addition.

    A MIRAX slide (.mrxs) has its pixels in the folder of the same name, a Hamamatsu VMS or VMU slide in the files that
    it names (https://openslide.org/formats/). `TiffSlide` itself says which files of an OME-TIFF it reads.
    """
    suffix = file.suffix.lower()
    if suffix == ".mrxs":
        return file, *sorted(path for path in file.with_suffix("").rglob("*") if path.is_file())
    if suffix in (".vms", ".vmu"):
        return file, *_named_in(file)
    return (file,)


def _named_in(index: Path) -> list[Path]:
    with opened_file(index) as stream:
        lines = stream.read(_INDEX_BYTES).decode("utf-8", "replace").splitlines()
    values = dict.fromkeys(line.partition("=")[2].strip() for line in lines)
    return [index.parent / value for value in values if value and (index.parent / value).is_file()]
