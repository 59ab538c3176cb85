"""Data sets by name, and what importing them costs."""

import subprocess
import sys

import pytest

from nucseg.data import DataSet, dataset_names, open_dataset
from nucseg.data.synthetic import synthetic_dataset
from nucseg.errors import ConfigError, DataError


def test_every_name_can_be_opened(tmp_path) -> None:
    *on_disk, drawn = dataset_names()

    assert open_dataset(drawn, None).name == "synthetic"
    for name in on_disk:
        with pytest.raises(DataError):
            open_dataset(name, tmp_path)


def test_an_unknown_name_lists_the_known_ones() -> None:
    listed = "nuinsseg, cryonuseg, conic, dsb2018, folder, synthetic"
    with pytest.raises(ConfigError, match=rf"'nuinseg'\. Did you mean 'nuinsseg'\? Known: {listed}"):
        open_dataset("nuinseg", None)


def test_a_data_set_on_disk_needs_a_source() -> None:
    with pytest.raises(ConfigError, match="give it with --source DIR"):
        open_dataset("folder", None)


def test_a_generated_data_set_takes_no_source(tmp_path) -> None:
    with pytest.raises(ConfigError, match="leave out the source"):
        open_dataset("synthetic", tmp_path)


def test_a_source_that_is_not_a_folder_is_named(tmp_path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(DataError, match=r"nowhere does not exist\. Give the folder of the images and masks"):
        open_dataset("folder", tmp_path / "nowhere")
    with pytest.raises(DataError, match="file is not a folder"):
        open_dataset("folder", tmp_path / "file")


def test_repeated_ids_are_refused() -> None:
    entries = synthetic_dataset(2).entries

    with pytest.raises(DataError, match=r"1 ids .* more than one image; the first is 'lymphoid/0000'"):
        DataSet("twice", "", (*entries, entries[0]))


@pytest.mark.shared
@pytest.mark.parametrize("name", ["nuinsseg", "cryonuseg", "conic", "dsb2018"])
def test_each_real_data_set_is_found_among_the_others(shared, name) -> None:
    folder = {"dsb2018": "dsb2018_he"}.get(name, name)

    found = open_dataset(name, shared / "data")

    assert (found.name, found.source) == (name, str(shared / "data"))
    assert all(str(shared / "data" / folder) in repr(entry) for entry in found.entries)


def test_importing_nucseg_data_loads_nothing_heavy() -> None:
    code = "import sys, nucseg.data; print(*sys.modules)"

    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()

    assert "nucseg.data.splits" in loaded
    assert not {"torch", "skimage", "sklearn", "scipy", "matplotlib", "tifffile"} & set(loaded)
