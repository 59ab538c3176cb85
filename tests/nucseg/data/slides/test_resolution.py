"""Microns per pixel are read from tags of every type, with both sides, and refused if no microscope has them."""

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from nucseg.data.slides import Slide, open_slide, square_side
from nucseg.errors import DataError

IMAGE = np.full((32, 48, 3), 200, np.uint8)


def opened(file: Path, **options: Any) -> Slide:
    tifffile.imwrite(file, IMAGE, photometric="rgb", **{"metadata": None, **options})
    slide = open_slide(file)
    slide.close()
    return slide


def ome(*attributes: str) -> str:
    return f"<OME><Image><Pixels {' '.join(attributes)}/></Image></OME>"


@pytest.mark.parametrize(
    ("options", "mpp"),
    [
        ({"resolution": (40_000, 20_000), "resolutionunit": "CENTIMETER"}, (0.5, 0.25)),
        ({"description": ome('PhysicalSizeX="0.5"', 'PhysicalSizeY="1"')}, (1.0, 0.5)),
        ({"description": ome('PhysicalSizeX="500" PhysicalSizeXUnit="nm"', 'PhysicalSizeY="1"')}, (1.0, 0.5)),
        ({"description": ome('PhysicalSizeY="0.5"')}, (0.5, 0.5)),
        ({"description": ome('PhysicalSizeX="5E-4" PhysicalSizeXUnit="mm"')}, (0.5, 0.5)),
        ({"description": ome('PhysicalSizeX="0.5" PhysicalSizeXUnit="reference frame"')}, None),
        ({"description": "ImageJ=1.53\nunit=\\u00B5m\n", "resolution": (4, 2)}, (0.5, 0.25)),
        ({"description": "ImageJ=1.53\nunit=mm\n", "resolution": (2000, 1000)}, (1.0, 0.5)),
        ({"description": "ImageJ=1.53\nunit=pixel\n", "resolution": (4, 2)}, None),
    ],
)
def test_both_sides_of_a_pixel_are_read(options, mpp, tmp_path) -> None:
    """ashlar #122 and wsidicomizer #137: pixels that are not square were taken for square."""
    assert opened(tmp_path / "a.tif", **options).mpp == (None if mpp is None else pytest.approx(mpp))


@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_a_unit_is_read_from_bytes_and_what_pixels_depend_on_is_refused_in_them(byteorder, tmp_path) -> None:
    """A PlanarConfiguration in a BYTE scrambled the pixels, and a ResolutionUnit was taken for an inch."""
    file = tmp_path / "a.tif"
    opened(file, resolution=(40_000, 20_000), resolutionunit="CENTIMETER", byteorder=byteorder)
    with_tag(file, "ResolutionUnit", 1, b"\3")
    slide = open_slide(file)
    slide.close()
    assert slide.mpp == pytest.approx((0.5, 0.25))

    with_tag(file, "PlanarConfiguration", 1, b"\1")
    with pytest.raises(DataError, match="has the tag PlanarConfiguration in bytes"):
        open_slide(file)


TYPES = {"H": 3, "I": 4, "f": 11, "d": 12, "2I": 5, "2i": 10, "Q": 16}
"""Format of a number -> type of a tag; two numbers are a fraction."""


def with_tag(file: Path, name: str, kind: int, value: Any) -> None:
    with tifffile.TiffFile(file, mode="r+") as tiff:
        tiff.pages.first.tags[name].overwrite(value, dtype=kind)


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("kind", TYPES)
def test_a_density_is_read_from_a_tag_of_every_type(kind, count, tmp_path) -> None:
    """A DOUBLE or SHORT XResolution ended in a traceback or gave another number."""
    file = tmp_path / "a.tif"
    opened(file, resolution=(1, 1), resolutionunit="CENTIMETER", bigtiff=kind == "Q")
    for name, per_cm in (("XResolution", 40_000), ("YResolution", 20_000)):
        values = ((per_cm, 1) if kind[0] == "2" else (per_cm,)) * count
        with_tag(file, name, TYPES[kind], values if len(values) > 1 else per_cm)
    slide = open_slide(file)
    slide.close()
    assert slide.mpp == pytest.approx((0.5, 0.25))


FORMATS = {1: "B", 2: "s", 3: "H", 4: "I", 5: "2I", 7: "s", 9: "i", 10: "2i", 11: "f", 12: "d"}


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(sorted(FORMATS)),
    st.integers(1, 3),
    st.binary(min_size=24, max_size=24),
    st.sampled_from(["XResolution", "ResolutionUnit"]),
)
def test_tags_of_any_type_and_content_give_a_plausible_value_or_none(
    tmp_path_factory, kind, count, content, name
) -> None:
    form, file = FORMATS[kind], tmp_path_factory.mktemp("tags") / "a.tif"
    opened(file, resolution=(40_000, 40_000), resolutionunit="CENTIMETER")
    value: Any = struct.unpack_from(f"<{count * int(form[:-1] or '1')}{form[-1]}", content)
    if form == "s":
        value = bytes(33 + byte % 90 for byte in value[0])
    with_tag(file, name, kind, value[0] if len(value) == 1 and form != "s" else value)
    slide = open_slide(file)
    slide.close()
    assert slide.mpp is None or 0.05 <= min(slide.mpp) <= max(slide.mpp) <= min(4 * min(slide.mpp), 20)


@pytest.mark.parametrize(
    ("options", "mpp"),
    [({"resolution": (50_800, 50_800)}, (0.5, 0.5)), ({"resolution": (72, 72)}, None)],
)
def test_a_density_without_a_unit_is_per_inch(options, mpp, tmp_path) -> None:
    """The default of the TIFF specification."""
    tifffile.imwrite(tmp_path / "a.tif", IMAGE, photometric="rgb", metadata=None, resolutionunit="INCH", **options)
    data = bytearray((tmp_path / "a.tif").read_bytes())
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        offset = file.pages.first.tags["ResolutionUnit"].offset
    data[offset : offset + 2] = (65_000).to_bytes(2, "little")  # a private tag in its place
    (tmp_path / "a.tif").write_bytes(data)
    slide = open_slide(tmp_path / "a.tif")
    slide.close()
    assert slide.mpp == (None if mpp is None else pytest.approx(mpp))


@pytest.mark.parametrize(("x", "y"), [(352.8, 352.8), (0.25, 25.0), (0.25, 5.0), (-1, -1), (0, 0)])
def test_a_resolution_that_no_microscope_has_is_not_used_and_said(x, y, tmp_path) -> None:
    slide = opened(tmp_path / "a.tif", description=ome(f'PhysicalSizeX="{x}"', f'PhysicalSizeY="{y}"'))
    assert slide.mpp is None
    assert f"pixels of {x:g} x {y:g} microns" in " ".join(slide.notes)


def test_sides_that_a_scanner_measured_with_an_error_are_square() -> None:
    assert square_side((0.2508, 0.2507)) == 0.2507
    assert square_side((0.5, 0.25)) is None
    assert square_side(None) is None
