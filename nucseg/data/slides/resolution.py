"""Microns per pixel of a page, from the metadata of several formats."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

Mpp = tuple[float, float]
"""Microns per pixel, down and across."""

PLAUSIBLE = (0.05, 20.0)
"""Range of microscopes; other values, such as 72 dots per inch (353), do not give the magnification."""

MAX_ASPECT = 4.0
"""Largest ratio of the sides of a pixel; scanners that move in steps reach 2."""

SAME_SIDES = 1.01
"""Pixels whose sides differ by less are square: scanners measure both sides."""

MICRONS = {
    "µm": 1.0, "um": 1.0, "micron": 1.0, "microns": 1.0, "nm": 1e-3, "pm": 1e-6, "Å": 1e-4, "mm": 1e3, "cm": 1e4,
    "dm": 1e5, "m": 1e6, "inch": 25_400.0, "in": 25_400.0, "thou": 25.4, "pt": 25_400 / 72,
}  # fmt: skip
"""Microns of the units of OME-TIFF and ImageJ; a unit that is not among them, such as "pixel", is not a length."""

_INCH, _CENTIMETRE = 2, 3
_MICRONS_OF_TAG = {_INCH: 25_400.0, _CENTIMETRE: 10_000.0}
_RATIONALS = (5, 10)


@dataclass(frozen=True)
class Resolution:
    """The resolution of an image."""

    mpp: Mpp | None = None
    """None if it is missing or implausible."""
    note: str = ""
    """Why a value in the file is not used; else empty."""


def resolution_of(*candidates: Mpp | None) -> Resolution:
    """Choose the first plausible candidate."""
    known = [mpp for mpp in candidates if mpp is not None]
    for mpp in known:
        if _is_plausible(mpp):
            return Resolution(mpp)
    if not known:
        return Resolution()
    down, across = known[0]
    return Resolution(
        None,
        f"The file records pixels of {across:.4g} x {down:.4g} microns. No microscope has such pixels, so this is not "
        "used.",
    )


def page_resolution(page: Any, ome: Mpp | None = None) -> Resolution:
    """Find it for a page of a tifffile.TiffFile: in its OME-XML, Aperio's text, ImageJ's unit, or its tags."""
    description = str(page.description or "")
    return resolution_of(ome, _aperio(description), _imagej(page, description), _tags(page))


def both(down: float | None, across: float | None) -> Mpp | None:
    """A pair of which one value may be missing: pixels are square then."""
    down, across = (value if value is not None and math.isfinite(value) else None for value in (down, across))
    if down is None or across is None:
        side = across if down is None else down
        return None if side is None else (side, side)
    return down, across


def square_side(mpp: Mpp | None) -> float | None:
    """The side of square pixels; None if they are not square, or if it is not known."""
    return mpp[1] if mpp is not None and max(mpp) <= min(mpp) * SAME_SIDES else None


def number(text: str | None) -> float | None:
    """Parse a number; None if the text is not a number."""
    try:
        return None if text is None else float(text)
    except ValueError:
        return None


def _is_plausible(mpp: Mpp) -> bool:
    low, high = PLAUSIBLE
    return low <= min(mpp) and max(mpp) <= high and max(mpp) <= MAX_ASPECT * min(mpp)


def _aperio(description: str) -> Mpp | None:
    side = number(_first(r"\bMPP *= *([0-9.eE+-]{1,40})", description))
    return both(side, side)


def _imagej(page: Any, description: str) -> Mpp | None:
    if not description.startswith("ImageJ="):
        return None
    unit = (_first(r"^unit=(\S{1,20})", description) or "").replace("\\u00B5", "µ").replace("μ", "µ")
    return _per_pixel(page, MICRONS.get(unit))


def _tags(page: Any) -> Mpp | None:
    unit = next(_values(page, "ResolutionUnit"), float(_INCH))
    return _per_pixel(page, _MICRONS_OF_TAG.get(int(unit)) if math.isfinite(unit) else None)


def _per_pixel(page: Any, microns_of_unit: float | None) -> Mpp | None:
    if microns_of_unit is None:
        return None
    densities = (next(_values(page, name), 0.0) for name in ("YResolution", "XResolution"))
    return both(*(microns_of_unit / density if density else None for density in densities))


def _values(page: Any, name: str) -> Iterator[float]:
    """The numbers in a tag, whatever its type and count; none if it is missing or has no number."""
    tag = page.tags.get(name)
    value = () if tag is None else tag.value
    parts = (
        value if isinstance(value, tuple | bytes) else (value,)
    )  # tifffile returns numbers of the type BYTE as bytes
    numbers = [number(str(part)) for part in parts]
    if tag is not None and int(tag.dtype) in _RATIONALS:
        numbers = [above / below if above is not None and below else None for above, below in _pairs(numbers)]
    yield from (found for found in numbers if found is not None)


def _pairs(numbers: list[float | None]) -> Iterator[tuple[float | None, float | None]]:
    return zip(numbers[::2], numbers[1::2], strict=False)


def _first(pattern: str, text: str) -> str | None:
    found = re.search(pattern, text, re.MULTILINE)
    return found[1] if found else None
