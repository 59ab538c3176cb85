"""The images that the OME-XML of a TIFF describes, and where their pixels are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any
from xml.etree import ElementTree

from nucseg.data.slides.resolution import MICRONS, Mpp, both, number

_DEFAULT_UNIT = "µm"


@dataclass(frozen=True)
class OmeImage:
    """An Image element."""

    file: str
    """Name of the file that has its first plane, in lower case; empty for the file of the XML itself."""
    page: int
    """Index of the page of the first plane."""
    size: tuple[int, int]
    """(H, W); 0 if missing."""
    mpp: Mpp | None


def ome_images(tiff: Any) -> list[OmeImage]:
    """List the images in the OME-XML of a tifffile.TiffFile; none if it has none, or if the XML is damaged."""
    try:
        # tifffile has parsed it before; expat limits the expansion of entities
        root = ElementTree.fromstring(tiff.pages.first.description)  # noqa: S314
    except ElementTree.ParseError:
        return []
    if not root.tag.endswith("OME"):
        return []
    own = root.attrib.get("UUID", ""), tiff.filename.lower()
    return [_image(pixels, own) for pixels in _children(root, "Pixels", deep=True)]


def ome_image_of(page: Any, tiff: Any, images: list[OmeImage]) -> OmeImage | None:
    """The image whose first plane is a page of a file; an only image belongs to an only page without a reference."""
    file = "" if page.parent is tiff else page.parent.filename.lower()
    found = [image for image in images if (image.file, image.page) == (file, page.index)]
    return next(iter(found or (images if len(images) == 1 else [])), None)


def _image(pixels: ElementTree.Element, own: tuple[str, str]) -> OmeImage:
    data = next(_children(pixels, "TiffData"), ElementTree.Element("TiffData"))
    uuid = next(_children(data, "UUID"), None)
    file = "" if uuid is None else PurePosixPath(uuid.attrib.get("FileName", "")).name.lower()
    if uuid is not None and ((own[0] and uuid.text == own[0]) or file == own[1]):
        file = ""
    down, across = (_microns(pixels, side) for side in "YX")
    size_y, size_x, page = (
        _integer(attributes.get(name))
        for attributes, name in ((pixels.attrib, "SizeY"), (pixels.attrib, "SizeX"), (data.attrib, "IFD"))
    )
    return OmeImage(file, page, (size_y, size_x), both(down, across))


def _microns(pixels: ElementTree.Element, side: str) -> float | None:
    size = number(pixels.attrib.get(f"PhysicalSize{side}"))
    unit = pixels.attrib.get(f"PhysicalSize{side}Unit", _DEFAULT_UNIT).replace("μ", "µ")
    return None if size is None or unit not in MICRONS else size * MICRONS[unit]


def _integer(text: str | None) -> int:
    return int(text) if text is not None and text.isdecimal() else 0


def _children(element: ElementTree.Element, name: str, *, deep: bool = False) -> Iterator[ElementTree.Element]:
    """Children with a name in any namespace; also their children if `deep`."""
    return (child for child in (element.iter() if deep else element) if str(child.tag).rpartition("}")[2] == name)
