"""Size, resolution and pixels are those of the image that is read, in files with several."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from nucseg.data.slides import Slide, open_slide, scene_names
from nucseg.errors import DataError

Written = tuple[str, tuple[int, int], int, float | None]
"""Name, size, gray value and microns per pixel of an image in a file."""


def ome_file(file: Path, *images: Written, **options: Any) -> Path:
    with tifffile.TiffWriter(file, ome=True) as tiff:
        for name, size, value, mpp in images:
            sizes = {} if mpp is None else {"PhysicalSizeX": mpp, "PhysicalSizeY": mpp}
            pixels = np.full((*size, 3), value, np.uint8)
            metadata = {"axes": "YXS", "Name": name, **sizes}
            tiff.write(pixels, photometric="rgb", tile=(64, 64), compression="zlib", metadata=metadata, **options)
    return file


def seen(slide: Slide) -> tuple[tuple[int, int], int, float | None]:
    """Size, gray value and microns per pixel of what is read."""
    value = int(slide.read(0, 0, 9, 9).mean())
    slide.close()
    return slide.size, value, slide.mpp and slide.mpp[1]


MAIN: Written = ("main", (1024, 768), 200, 0.5)
OVERVIEWS: list[Written] = [
    ("macro", (256, 192), 90, 1.5),
    ("label image", (300, 300), 90, None),
    ("Image 2", (256, 192), 90, 2.0),
    ("Image 2", (256, 192), 90, None),
    ("", (128, 96), 90, None),
    ("Image 2", (300, 500), 90, 8.0),
    ("Thumbnail_1", (1000, 700), 90, 0.5),
]


@pytest.mark.parametrize("overview", OVERVIEWS)
@pytest.mark.parametrize("first", [True, False])
def test_an_overview_is_not_taken_for_the_slide_wherever_it_is(overview, first, tmp_path) -> None:
    """sopa #385 and tiatoolbox #834: the resolution was that of the first image, whichever was read."""
    images = (overview, MAIN) if first else (MAIN, overview)
    file = ome_file(tmp_path / "a.ome.tif", *images)
    assert scene_names(file) == []
    assert seen(open_slide(file)) == ((1024, 768), 200, 0.5)


@pytest.mark.parametrize(
    ("overview", "reason"),
    [
        (("Image 2", (256, 192), 90, 2.0), "by its resolution"),
        (("Image 2", (256, 192), 90, None), "by its size"),
        (("overview of core 3", (1000, 700), 90, 0.5), "or a label by its name"),
    ],
)
def test_what_is_taken_for_an_overview_is_mentioned_with_the_reason(overview, reason, tmp_path) -> None:
    slide = open_slide(ome_file(tmp_path / "a.ome.tif", MAIN, overview))
    slide.close()
    name, (height, width) = overview[:2]
    expected = f"The file also has {name} ({width} x {height} pixels, an overview {reason}), not predicted."
    assert expected in slide.notes


def test_the_images_of_nearly_every_slide_are_not_mentioned(tmp_path) -> None:
    slide = open_slide(ome_file(tmp_path / "b.ome.tif", MAIN, ("macro", (256, 192), 90, 2.0)))
    slide.close()
    assert slide.notes == ()


def test_a_file_of_one_image_is_read_whatever_its_name(tmp_path) -> None:
    assert seen(open_slide(ome_file(tmp_path / "a.ome.tif", ("macro", (256, 192), 90, 0.5)))) == ((256, 192), 90, 0.5)


@pytest.mark.parametrize("side", [100, 2112])
def test_every_scene_is_found_and_has_its_own_pixels_and_resolution(side, tmp_path) -> None:
    """tiatoolbox #834: one of two scenes was read, and the other not mentioned."""
    scenes = [
        ("s0", (side, side), 200, 0.5),
        ("region/2", (side - 10, side // 2), 90, 0.25),
        ("macro", (99, 60), 5, 9.0),
    ]
    file = ome_file(tmp_path / "a.ome.tif", *scenes)

    assert scene_names(file) == ["s0", "region_2"]
    for wanted in (("s0", "region_2"), ("1", "2"), (1, 2)):
        found = [seen(open_slide(file, scene)) for scene in wanted]
        assert found == [((side, side), 200, 0.5), ((side - 10, side // 2), 90, 0.25)]
    with pytest.raises(DataError, match=r"has 2 scenes \(s0, region_2\): choose one of them.*--scene"):
        open_slide(file)
    with pytest.raises(DataError, match=r"has 2 scenes \(s0, region_2\): there is no 's3'"):
        open_slide(file, "s3")


def test_scenes_of_equal_or_no_names_are_numbered(tmp_path) -> None:
    for names in (("a", "a"), ("", ""), ("a b", "a/b")):
        file = ome_file(tmp_path / "a.ome.tif", *((name, (100, 100), 9, 0.5) for name in names))
        assert scene_names(file) == ["scene1", "scene2"]


def test_an_image_with_one_scene_is_also_its_first(tmp_path) -> None:
    ome_file(tmp_path / "a.ome.tif", MAIN)
    np.save(tmp_path / "a.npy", np.zeros(1))
    assert seen(open_slide(tmp_path / "a.ome.tif", "1"))[1] == 200
    with pytest.raises(DataError, match="has 1 scene "):
        open_slide(tmp_path / "a.ome.tif", "2")


def test_scenes_may_all_be_named_like_overviews(tmp_path) -> None:
    names = ("overview of core 1", "overview of core 2")
    file = ome_file(tmp_path / "a.ome.tif", *((name, (100, 100), 9, 0.5) for name in names))
    assert scene_names(file) == ["overview_of_core_1", "overview_of_core_2"]


def test_a_scene_may_be_called_a_map(tmp_path) -> None:
    file = ome_file(tmp_path / "a.ome.tif", ("map of cores", (99, 90), 9, 0.5), ("map", (98, 90), 9, 0.5))
    assert scene_names(file) == ["map_of_cores", "map"]


@pytest.mark.parametrize("size", ["nan", "-1", "1e9", ""])
def test_an_incomplete_description_does_not_hide_the_pixels(size, tmp_path) -> None:
    xml = f'<OME><Image><Pixels SizeX="{size}" SizeY="{size}" PhysicalSizeX="0.5"/></Image></OME>'
    pixels = np.full((64, 64, 3), 200, np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb", description=xml, metadata=None)
    assert seen(open_slide(tmp_path / "a.tif")) == ((64, 64), 200, 0.5)


# ---- several files


def part_of_a_data_set(folder: Path, number: int, *, in_files: tuple[str, ...] = ("s0.ome.tif", "s1.ome.tif")) -> Path:
    """A file of a data set of two, which describes both, as `bfconvert` writes with %s in the name."""
    uuids = [f"urn:uuid:0000000{index}-0000-4000-8000-000000000000" for index in range(2)]
    images = "".join(
        f'<Image ID="Image:{index}" Name="s{index}"><Pixels ID="Pixels:{index}" DimensionOrder="XYCZT" Type="uint8" '
        f'SizeX="{96 + 32 * index}" SizeY="128" SizeC="3" SizeZ="1" SizeT="1" PhysicalSizeX="0.{index + 1}" '
        f'PhysicalSizeY="0.{index + 1}"><Channel ID="Channel:{index}:0" SamplesPerPixel="3"/><TiffData IFD="0" '
        f'PlaneCount="1"><UUID FileName="{name}">{uuids[index]}</UUID></TiffData></Pixels></Image>'
        for index, name in enumerate(in_files)
    )
    xml = f'<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="{uuids[number]}">{images}</OME>'
    pixels = np.full((128, 96 + 32 * number, 3), 100 + number, np.uint8)
    file = folder / f"s{number}.ome.tif"
    tifffile.imwrite(file, pixels, photometric="rgb", tile=(32, 32), compression="zlib", description=xml, metadata=None)
    return file


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("neighbour", ["there", "missing", "damaged"])
def test_a_file_of_several_is_read_with_its_own_pixels(number, neighbour, tmp_path) -> None:
    """bioformats #3851, tifffile #80: the second file was refused as damaged while the first was in its folder."""
    file = part_of_a_data_set(tmp_path, number)
    if neighbour != "missing":
        other = part_of_a_data_set(tmp_path, 1 - number)
    if neighbour == "damaged":
        other.write_bytes(b"nothing")
    assert scene_names(file) == []
    assert seen(open_slide(file)) == ((128, 96 + 32 * number), 100 + number, pytest.approx(0.1 * (number + 1)))


def test_a_renamed_file_of_several_is_read_with_its_own_pixels(tmp_path) -> None:
    part_of_a_data_set(tmp_path, 0)
    file = part_of_a_data_set(tmp_path, 1).rename(tmp_path / "renamed.ome.tif")
    assert seen(open_slide(file)) == ((128, 128), 101, pytest.approx(0.2))


def index_file(folder: Path) -> Path:
    """A file whose description refers to pixels in another file, and that has only a small page of its own."""
    part_of_a_data_set(folder, 0)
    with tifffile.TiffFile(folder / "s0.ome.tif") as tiff:
        own, other = '2016-06" UUID="urn:uuid:00000000', '2016-06" UUID="urn:uuid:0000000f'
        xml = tiff.ome_metadata.replace(own, other)
    tifffile.imwrite(
        folder / "index.ome.tif", np.zeros((8, 8, 3), np.uint8), photometric="rgb", description=xml, metadata=None
    )
    return folder / "index.ome.tif"


def test_pixels_in_another_file_are_read_there_or_the_missing_file_is_named(tmp_path) -> None:
    index = index_file(tmp_path)
    part_of_a_data_set(tmp_path, 1)
    assert scene_names(index) == ["s0", "s1"]
    assert [seen(open_slide(index, name))[:2] for name in ("s0", "s1")] == [((128, 96), 100), ((128, 128), 101)]

    for file, expected in {index: (index, tmp_path / "s1.ome.tif"), tmp_path / "s1.ome.tif": ()}.items():
        slide = open_slide(file, "s1" if expected else None)
        slide.close()
        assert slide.files == (expected or (file,))

    for number in (0, 1):
        (tmp_path / f"s{number}.ome.tif").unlink()
    with pytest.raises(DataError, match=r"pixels are in other files, which are missing: s0\.ome\.tif, s1\.ome\.tif"):
        open_slide(index)


# ---- levels


def test_a_level_of_another_shape_is_not_used(tmp_path) -> None:
    """A label that is stored as a level of the pyramid was read as the slide."""
    file = tmp_path / "a.ome.tif"
    with tifffile.TiffWriter(file, ome=True) as tiff:
        options: dict[str, Any] = {"photometric": "rgb", "tile": (64, 64)}
        tiff.write(np.full((512, 640, 3), 200, np.uint8), subifds=3, metadata={"axes": "YXS"}, **options)
        for size, value in (((256, 320), 200), ((256, 256), 5), ((85, 107), 200)):
            tiff.write(np.full((*size, 3), value, np.uint8), subfiletype=1, **options)

    slide = open_slide(file)

    assert slide.levels == [(512, 640), (256, 320), (85, 107)]
    assert all((slide.read(0, 0, 20, 20, grid=(h, w)) == 200).all() for h, w in ((512, 640), (240, 300), (40, 50)))
    slide.close()
