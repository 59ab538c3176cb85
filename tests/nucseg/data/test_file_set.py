"""Which files a slide is read from, in the layouts of https://openslide.org/formats/."""

from pathlib import Path

import pytest
from PIL import Image

from nucseg.data.slides import open_slide
from nucseg.data.slides.file_set import files_of


def test_a_mirax_slide_has_the_files_of_its_folder_in_a_fixed_order(tmp_path: Path) -> None:
    folder = tmp_path / "slide"
    folder.mkdir()
    for name in ("Slidedat.ini", "Data0001.dat", "Data0000.dat", "Index.dat"):
        (folder / name).write_text(name)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "Data0000.dat").touch()

    found = files_of(tmp_path / "slide.mrxs")

    names = ("Data0000.dat", "Data0001.dat", "Index.dat", "Slidedat.ini")
    assert found == (tmp_path / "slide.mrxs", *(folder / name for name in names))


@pytest.mark.parametrize("suffix", [".vms", ".VMU"])
def test_a_hamamatsu_slide_has_the_files_that_it_names(tmp_path: Path, suffix: str) -> None:
    index = tmp_path / f"slide{suffix}"
    index.write_text(
        "[Virtual Microscope Specimen]\nNoLayers=1\nNoJpegColumns=2\nImageFile=slide.jpg\nImageFile(1,0)=slide-1.jpg\n"
        "MapFile=slide_map2.jpg\nOptimisationFile=missing.opt\nAuthCode=\n"
    )
    for name in ("slide.jpg", "slide-1.jpg", "slide_map2.jpg", "unrelated.jpg"):
        (tmp_path / name).touch()

    assert [file.name for file in files_of(index)] == [index.name, "slide.jpg", "slide-1.jpg", "slide_map2.jpg"]


def test_another_image_is_its_only_file(tmp_path: Path) -> None:
    file = tmp_path / "image.png"
    Image.new("RGB", (5, 4)).save(file)
    (tmp_path / "image").mkdir()
    (tmp_path / "image" / "notes.txt").touch()

    assert tuple(open_slide(file).files) == (file,)
