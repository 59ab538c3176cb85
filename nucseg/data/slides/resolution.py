"""Microns per pixel, from the metadata of several formats."""

import math
import re
from typing import Any

PLAUSIBLE = (0.05, 20.0)
"""Range of microscopes; other values, such as 72 dots per inch (353), do not give the magnification."""

_MICRONS = {"µm": 1.0, "μm": 1.0, "um": 1.0, "micron": 1.0, "microns": 1.0, "nm": 1e-3, "mm": 1e3, "cm": 1e4}
_INCH, _CENTIMETRE = 2, 3
_MICRONS_OF_UNIT = {_INCH: 25_400.0, _CENTIMETRE: 10_000.0}


def plausible(mpp: float | None) -> float | None:
    """The value if it is in the range of microscopes, else None."""
    low, high = PLAUSIBLE
    return mpp if mpp is not None and math.isfinite(mpp) and low <= mpp <= high else None


def tiff_mpp(tiff: Any) -> float | None:
    """Find it in a tifffile.TiffFile: in OME-XML, Aperio's description, ImageJ's unit, or the resolution tags."""
    page = tiff.pages.first
    description = str(page.description or "")
    for candidate in (_ome(tiff.ome_metadata or ""), _aperio(description), _imagej(page, description), _tags(page)):
        if (mpp := plausible(candidate)) is not None:
            return mpp
    return None


def number(text: str | None) -> float | None:
    """Parse a number; None if the text is not a number."""
    try:
        return None if text is None else float(text)
    except ValueError:
        return None


def _ome(xml: str) -> float | None:
    # by regular expression, because XML parsers are vulnerable to malicious files
    size = number(_first(r'\bPhysicalSizeX="([^"]{1,40})"', xml))
    unit = _first(r'\bPhysicalSizeXUnit="([^"]{1,20})"', xml) or "µm"
    factor = _MICRONS.get(unit.replace("&#181;", "µ").replace("&#xB5;", "µ"))
    return None if size is None or factor is None else size * factor


def _aperio(description: str) -> float | None:
    return number(_first(r"\bMPP *= *([0-9.eE+-]{1,40})", description))


def _imagej(page: Any, description: str) -> float | None:
    if not description.startswith("ImageJ="):
        return None
    unit = (_first(r"^unit=(\S{1,20})", description) or "").replace("\\u00B5", "µ")
    return _per_pixel(page, _MICRONS.get(unit))


def _tags(page: Any) -> float | None:
    unit = page.tags.get("ResolutionUnit")
    return _per_pixel(page, _MICRONS_OF_UNIT.get(int(unit.value)) if unit is not None else None)


def _per_pixel(page: Any, microns_of_unit: float | None) -> float | None:
    resolution = page.tags.get("XResolution")
    if microns_of_unit is None or resolution is None:
        return None
    numerator, denominator = resolution.value
    return microns_of_unit * denominator / numerator if numerator else None


def _first(pattern: str, text: str) -> str | None:
    found = re.search(pattern, text, re.MULTILINE)
    return found[1] if found else None
