"""Masks, names and tables with any content are read faithfully, or refused with an error that names the file."""

import io
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image
from scipy import ndimage

from nucseg.data import open_dataset
from nucseg.data.conic import patch_names
from nucseg.data.files import image_files
from nucseg.data.images import decode_image, decode_values
from nucseg.data.masks import instances_from
from nucseg.errors import DataError

FILE = Path("masks/a.tif")
RELAXED = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=80, deadline=None)
INTEGERS = st.sampled_from(["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8"])


def tiff(values: np.ndarray, **options: Any) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, values, **options)
    return file.getvalue()


@RELAXED
@given(
    INTEGERS.flatmap(lambda kind: arrays.arrays(kind, st.tuples(st.integers(1, 7), st.integers(5, 9)))),
    st.sampled_from([{}, {"compression": "zlib"}, {"byteorder": ">"}, {"photometric": "miniswhite"}]),
)
def test_a_mask_is_read_as_written(values, options) -> None:
    read = decode_values(tiff(values, **options), FILE)

    np.testing.assert_array_equal(read, values)
    assert read.dtype.kind == values.dtype.kind


@RELAXED
@given(INTEGERS.flatmap(lambda kind: arrays.arrays(kind, (6, 8), elements={"min_value": 0, "max_value": 100})))
def test_instances_are_ids_or_the_components_of_a_binary_mask(values) -> None:
    try:
        instances, facts = instances_from(values, FILE)
    except DataError as error:
        message = str(error)
        assert any(reason in message for reason in ("separate pieces", "of its pixels", "inverted", "background"))
        return

    if facts.n_pieces is None:
        np.testing.assert_array_equal(instances, values)
        return
    low, high = np.unique(values)
    mask = values == (high if low == 0 or (values == low).sum() > (values == high).sum() else low)
    _, n = ndimage.label(mask, np.ones((3, 3)))
    assert set(np.unique(instances)) - {0} == set(range(1, n + 1))
    assert facts.n_pieces == n
    np.testing.assert_array_equal(instances > 0, mask)


@RELAXED
@given(arrays.arrays("u1", (5, 6)), st.binary(min_size=768, max_size=768))
def test_every_index_of_a_palette_image_keeps_a_value_of_its_own(values, colours) -> None:
    picture = Image.frombytes("P", (6, 5), values.tobytes())
    picture.putpalette(colours)
    file = io.BytesIO()
    picture.save(file, "PNG")

    try:
        read = decode_values(file.getvalue(), Path("a.png"))
    except DataError as error:
        message = str(error)
        assert "not clear which one is the background" in message
        return

    pairs = set(zip(values.ravel().tolist(), read.ravel().tolist(), strict=True))
    assert len(pairs) == len(np.unique(values)) == len(np.unique(read))
    moved = {pair for pair in pairs if pair[0] != pair[1]}
    assert moved <= {(0, background) for _, background in moved} | {(background, 0) for background, _ in moved}


@RELAXED
@given(
    st.binary(max_size=300),
    st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"BM", b"RIFF", b"II*\0", b"MM\0*", b"II+\0"]),
)
def test_any_bytes_are_an_image_or_an_error(content, start) -> None:
    for decode, ndim in ((decode_image, 3), (decode_values, 2)):
        try:
            assert decode(start + content, FILE).ndim == ndim
        except DataError as error:
            message = str(error)
            assert "masks/a.tif" in message


NAMES = st.text(st.characters(exclude_characters="/\0"), min_size=1, max_size=20).filter(
    lambda name: not name.startswith(".") and len(name.encode(errors="replace")) < 200
)


@RELAXED
@given(st.lists(NAMES, min_size=1, max_size=4))
def test_names_are_composed_text_or_an_error(tmp_path_factory, names) -> None:
    folder = tmp_path_factory.mktemp("names")
    for name in names:
        try:
            (folder / f"{name}.png").write_bytes(b"")
        except UnicodeEncodeError:  # half a surrogate pair is no file name
            return
    try:
        found = image_files(folder)
    except DataError as error:
        message = str(error)
        composed = [unicodedata.normalize("NFC", name) for name in set(names)]
        controls = any(unicodedata.category(character) == "Cc" for name in names for character in name)
        assert controls or len(set(composed)) < len(composed), message
        return
    assert set(found) == {unicodedata.normalize("NFC", name) for name in names}
    assert all(file.is_file() for file in found.values())


@RELAXED
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=15), max_size=5), st.binary(max_size=80))
def test_any_table_gives_names_or_an_error(tmp_path, names, junk) -> None:
    file = tmp_path / "patch_info.csv"
    for content in (b"patch_info\n" + "\n".join(names).encode(), b"patch_info\n" + junk, junk):
        file.write_bytes(content)
        try:
            read = patch_names(file)
        except DataError as error:
            message = str(error)
            assert "patch_info.csv" in message
            continue
        assert len(set(read)) == len(read)
        assert all(name.isprintable() and "/" not in name for name in read)


@RELAXED
@given(st.sampled_from(["nuinsseg", "cryonuseg", "conic", "dsb2018", "folder"]), st.data())
def test_any_tree_of_files_is_a_data_set_or_an_error(tmp_path_factory, name, data) -> None:
    parts = ("images", "masks", "a", "tissue images", "label masks modify", "Annotator 1 (biologist)", "vague areas")
    files = ("a.png", "b.tif", "Human_Skin_01.tif", "images.npy", "labels.npy", "patch_info.csv", "a")
    source = tmp_path_factory.mktemp("tree")
    for folders, file in data.draw(
        st.lists(st.tuples(st.lists(st.sampled_from(parts), max_size=3), st.sampled_from(files)), max_size=6)
    ):
        place = source.joinpath(*folders)
        if not any(path.is_file() for path in (place, *place.parents)):
            place.mkdir(parents=True, exist_ok=True)
            if not (place / file).exists():
                (place / file).write_bytes(data.draw(st.sampled_from([b"", b"x", b"\x89PNG\r\n\x1a\n", b"\x93NUMPY"])))

    try:
        found = open_dataset(name, source)
    except DataError as error:
        message = str(error)
        assert str(source) in message
        return
    for entry in found.entries:
        with pytest.raises(DataError):
            entry.read()
