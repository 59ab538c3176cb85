"""What is said of images before they are trained on or scored."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nucseg.data import prepare, synthetic_dataset
from nucseg.errors import DataError
from nucseg_cache import SampleRow, Store
from nucseg_pipeline.loading.inspection import IGNORED, caution, caution_notes, check_counted, samples
from tests.pipeline.conftest import drawn_row, ignore_everything


@pytest.fixture
def sample() -> SampleRow:
    """An image of H&E that is wider than high, so that its lower part is padding."""
    drawn = synthetic_dataset(1, side_px=64).entries[0].read()[0]
    prepared = prepare(drawn.image[:20], drawn.instances[:20], drawn.ignore[:20], side_px=32)
    return replace(
        drawn_row(0), size=prepared.size, image=prepared.image, instances=prepared.instances, ignore=prepared.ignore
    )


def test_padding_is_neither_black_nor_ignored_content(sample: SampleRow) -> None:
    ignored = replace(sample, ignore=np.ones_like(sample.ignore))
    one_pixel = replace(sample, ignore=np.arange(32 * 32).reshape(32, 32) != 5)

    assert [caution(row) for row in (sample, ignored, one_pixel)] == ["", IGNORED, ""]
    assert caution(replace(sample, image=np.repeat(sample.image[..., :1], 3, axis=-1))) == "it is gray"


def test_the_note_names_images_with_their_reasons() -> None:
    assert caution_notes({"a": "", "b": IGNORED}, 2) == ()
    assert caution_notes({"a": "it is gray", "b": "", "c": "it is gray"}, 5) == (
        "2 of 5 images do not look like H&E: a (it is gray), c (it is gray). Check them.",
    )


def test_one_image_that_counts_is_enough(cache: Path) -> None:
    store = Store.open(cache / "synthetic.zarr", mode="r+")
    ids = [info.id for info in store.table]
    for image_id in ids[:-1]:
        ignore_everything(store, image_id)

    check_counted(store, ids, "training images")
    check_counted(store, (), "training images")
    with pytest.raises(DataError, match=r"all test images in .*synthetic\.zarr \(11: image \[0\], .* 6 more\)"):
        check_counted(store, ids[:-1], "test images")
    assert [sample.id for sample in samples(store, ids[::-1])] == ids[::-1]
